/**
 * The uniform random numbers from which tokens are drawn: docs/formats.md, "Noise", describes them and has test vectors.
 *
 * Philox4x64-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. Words of 64 bits are BigInts.
 * SHA-256 (FIPS 180-4) is written out because browsers offer theirs only on secure pages, and only asynchronously.
 */

const MULTIPLIERS = [0xd2e7470ee14c6c93n, 0xca5a826395121157n];
const KEY_STEPS = [0x9e3779b97f4a7c15n, 0xbb67ae8584caa73bn];
const ROUNDS = 10;

/** The name under which the draw takes its noise. */
export const DRAW = "draw";

/**
 * Return one block of noise.
 *
 * @param {bigint[]} counter four words of 64 bits, the lowest first
 * @param {bigint[]} key two words
 * @returns {bigint[]} four words
 */
export function philox(counter, key) {
  let [first, second, third, fourth] = counter;
  let [firstKey, secondKey] = key;
  for (let round = 0; round < ROUNDS; round++) {
    const one = first * MULTIPLIERS[0];
    const other = third * MULTIPLIERS[1];
    first = (other >> 64n) ^ second ^ firstKey;
    third = (one >> 64n) ^ fourth ^ secondKey;
    second = BigInt.asUintN(64, other);
    fourth = BigInt.asUintN(64, one);
    firstKey = BigInt.asUintN(64, firstKey + KEY_STEPS[0]);
    secondKey = BigInt.asUintN(64, secondKey + KEY_STEPS[1]);
  }
  return [first, second, third, fourth];
}

const planes = new Map();

/** Return the counter word that belongs to a link's name: a BigInt. */
export function counterPlane(name) {
  let plane = planes.get(name);
  if (plane === undefined) {
    const digest = sha256(new TextEncoder().encode(name));
    plane = new DataView(digest.buffer).getBigUint64(0, true);
    planes.set(name, plane);
  }
  return plane;
}

/**
 * Return `count * columns` numbers in [0, 1), those of a position side by side.
 *
 * @param {bigint | number} seed
 * @param {bigint | number} stream
 * @param {string} name the link that takes them, or DRAW
 * @param {number} position the first one
 * @param {number} count of positions
 * @param {number} columns numbers that the link takes at each position
 * @returns {Float32Array}
 */
export function uniforms(seed, stream, name, position, count, columns = 1) {
  const key = [BigInt(seed), BigInt(stream)];
  const plane = counterPlane(name);
  const numbers = new Float32Array(count * columns);
  const firstIndex = position * columns;
  let block = -1;
  let words;
  for (let offset = 0; offset < numbers.length; offset++) {
    const index = firstIndex + offset;
    if (Math.floor(index / 4) !== block) {
      block = Math.floor(index / 4);
      words = philox([BigInt(block) + 1n, 0n, plane, 0n], key);
    }
    numbers[offset] = Number(words[index % 4] >> 40n) * 2 ** -24;
  }
  return numbers;
}

/** The first `count` prime numbers. */
function primeNumbers(count) {
  const primes = [];
  for (let number = 2; primes.length < count; number++) {
    if (primes.every((prime) => number % prime)) primes.push(number);
  }
  return primes;
}

const SHA_PRIMES = primeNumbers(64);
/** The first 32 bits of the fractional parts of their cube roots; of the first eight, of their square roots. */
const ROUND_CONSTANTS = SHA_PRIMES.map((prime) => fractionBits(prime, 3));
const FIRST_HASH = SHA_PRIMES.slice(0, 8).map((prime) => fractionBits(prime, 2));

/** Return 32 bits of the fraction of a root, by whole numbers: the root of `prime * 2^(32 degree)`, modulo 2^32. */
function fractionBits(prime, degree) {
  const power = BigInt(prime) << BigInt(32 * degree);
  let low = 0n;
  let high = 1n << 40n;
  while (high - low > 1n) {
    const middle = (low + high) >> 1n;
    if (middle ** BigInt(degree) <= power) low = middle;
    else high = middle;
  }
  return Number(BigInt.asUintN(32, low));
}

const rotate = (word, bits) => (word >>> bits) | (word << (32 - bits));

/** Return the SHA-256 of bytes: a Uint8Array of 32. */
export function sha256(bytes) {
  const padded = new Uint8Array((((bytes.length + 8) >> 6) + 1) << 6);
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setBigUint64(padded.length - 8, BigInt(bytes.length) * 8n);
  const hash = Int32Array.from(FIRST_HASH);
  const schedule = new Int32Array(64);
  for (let begin = 0; begin < padded.length; begin += 64) {
    for (let round = 0; round < 64; round++) {
      schedule[round] = round < 16 ? view.getInt32(begin + 4 * round) : extendSchedule(schedule, round);
    }
    const next = compress([...hash], schedule);
    next.forEach((word, index) => (hash[index] += word));
  }
  const digest = new DataView(new ArrayBuffer(32));
  hash.forEach((word, index) => digest.setInt32(4 * index, word));
  return new Uint8Array(digest.buffer);
}

function extendSchedule(schedule, round) {
  const early = schedule[round - 15];
  const late = schedule[round - 2];
  const first = rotate(early, 7) ^ rotate(early, 18) ^ (early >>> 3);
  const second = rotate(late, 17) ^ rotate(late, 19) ^ (late >>> 10);
  return schedule[round - 16] + first + schedule[round - 7] + second;
}

/** Return the eight working variables after the 64 rounds of a block. */
function compress([a, b, c, d, e, f, g, h], schedule) {
  for (let round = 0; round < 64; round++) {
    const mixE = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
    const choice = (e & f) ^ (~e & g);
    const first = (h + mixE + choice + ROUND_CONSTANTS[round] + schedule[round]) | 0;
    const mixA = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
    const majority = (a & b) ^ (a & c) ^ (b & c);
    [a, b, c, d, e, f, g, h] = [(first + mixA + majority) | 0, a, b, c, (d + first) | 0, e, f, g];
  }
  return [a, b, c, d, e, f, g, h];
}

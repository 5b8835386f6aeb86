/** Ranges of characters as ranges of their bytes in UTF-8. */

/** The last code with one, two and three bytes, and the last one before the surrogates, which are no characters. */
const BOUNDS = [0x7f, 0x7ff, 0xd7ff, 0xdfff, 0xffff];

/**
 * Return sequences of `[low, high]`, a pair for each byte, that together are the characters from one code to another.
 *
 * @returns {[number, number][][]}
 */
export function byteRanges(first, last) {
  const bound = BOUNDS.find((code) => first <= code && code < last);
  if (bound !== undefined) {
    return [...byteRanges(first, bound), ...byteRanges(bound + 1, last)];
  }
  for (const bits of [6, 12, 18]) {
    // Within a sequence, only the last bytes of the first and the last code may differ, and then by their whole range.
    const size = 2 ** bits;
    if (first >= 0x80 && Math.floor(first / size) !== Math.floor(last / size)) {
      if (first % size !== 0) {
        const end = first - (first % size) + size - 1;
        return [...byteRanges(first, end), ...byteRanges(end + 1, last)];
      }
      if (last % size !== size - 1) {
        const begin = last - (last % size);
        return [...byteRanges(first, begin - 1), ...byteRanges(begin, last)];
      }
    }
  }
  const [low, high] = [encode(first), encode(last)];
  return low.length === 0 ? [] : [low.map((byte, index) => [byte, high[index]])];
}

/** Return the bytes of a character; those of a surrogate are none. */
function encode(code) {
  const isSurrogate = code >= 0xd800 && code <= 0xdfff;
  return isSurrogate ? [] : [...new TextEncoder().encode(String.fromCodePoint(code))];
}

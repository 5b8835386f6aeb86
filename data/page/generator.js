/**
 * Writes text with a generator.onnx, in a session of onnxruntime-web or onnxruntime-node.
 *
 * docs/deploy.md describes the inputs and outputs of the graph, docs/browser.md the requests and results.
 */

import { beginMatch, MATCH_LINK } from "./match.js";
import { DRAW, uniforms } from "./noise.js";
import { readMetadata, splitDefaults } from "./onnx_file.js";
import { listParameters } from "./parameters.js";
import { MAX_TOP, readSettings } from "./request_settings.js";
import { RowText } from "./row_text.js";
import { guard, yieldThread } from "./runtime.js";
import { TextReader, Tokenizer } from "./tokenizer.js";

/** Positions of a prompt that are read in one call. */
const PROMPT_POSITIONS = 256;
/** Positions of the first call that draws, and of any. The number grows while a call is fast: so the first
 * characters come at once, and a text can be ended soon. */
const [FIRST_POSITIONS, MOST_POSITIONS, FAST_MILLISECONDS] = [1, 256, 30];
/** The meaning of the numbers in the output `ended_out`. */
const FINISH_BY_CODE = [null, "stop", "masked", "match", "end"];
const ELEMENT_ARRAYS = { float32: Float32Array, int64: BigInt64Array, bool: Uint8Array };

/** A model that writes. Its sessions are plain objects, which can be copied into another thread. */
export class Generator {
  /**
   * Open a file.
   *
   * @param {object} ort the namespace of onnxruntime-web or onnxruntime-node
   * @param {Uint8Array} bytes of the file
   * @param {{name?: string, sessionOptions?: object}} [options] `name` of the file is for messages
   * @throws {EngineError}
   */
  static async open(ort, bytes, { name = "generator.onnx", sessionOptions = {} } = {}) {
    const metadata = readMetadata(bytes, name);
    const file = splitDefaults(bytes);
    const options = {
      logSeverityLevel: 3,
      extra: { session: { set_denormal_as_zero: "1" } },
      ...sessionOptions,
    };
    const session = await guard(name, bytes, () => ort.InferenceSession.create(file.bytes, options));
    return new Generator(ort, session, metadata, file, name);
  }

  constructor(ort, session, metadata, file, name) {
    this.ort = ort;
    this.session = session;
    this.metadata = metadata;
    this.name = name;
    this.bytes = file.bytes;
    this.tokenizer = new Tokenizer(metadata);
    this.defaults = Object.fromEntries(
      Object.entries(file.defaults).map(([input, { type, data, dims }]) => [input, new ort.Tensor(type, data, dims)]),
    );
    /** The states that a row carries from call to call: name, type and shape. */
    this.states = [
      ...metadata.states.map(({ name, dtype, shape }) => ({ name, type: dtype, dims: shape.map((size) => size ?? 1) })),
      ...metadata.chain.flatMap((link) =>
        Object.entries(link.state).map(([state, { shape, dtype }]) => {
          return { name: `${link.name}.${state}`, type: dtype, dims: [1, ...shape] };
        }),
      ),
      { name: "stop_state", type: "int64", dims: [1] },
      { name: "ended", type: "int64", dims: [1] },
    ];
    /** The columns of the noise: who takes them, and how many. */
    this.noise = [...metadata.chain.map(({ name, uniforms: columns }) => [name, columns]), [DRAW, 1]].filter(
      ([, columns]) => columns,
    );
  }

  /** Describe the model, as the interface of an engine does. */
  describe() {
    return {
      name: this.metadata.card.corpus?.name ?? this.name,
      chain: listParameters(this.metadata.chain),
      symbols: this.tokenizer.texts,
      abilities: { match: this.#hasMatch, jsonSchema: false, best: false, score: false, top: MAX_TOP },
      records: this.metadata.records,
      card: this.metadata.card,
    };
  }

  /**
   * Write a text. docs/browser.md describes the request and the result.
   *
   * @throws {EngineError}
   */
  async write(request) {
    const checked = this.readSettings(request);
    const { row: firstRow, inputs } = this.#beginMatch(request.session?.row ?? this.firstRow(), checked);
    const settings = { ...checked, inputs };
    const prompt = this.tokenizer.encode(request.prompt ?? "", settings.unknown);
    const text = new RowText({ ...settings, ...this.#startText(request.session, settings) });
    let row = firstRow;
    const reader = new TextReader();
    const echoed = [];
    for (let begin = 0; begin < prompt.length && !request.signal?.aborted; begin += PROMPT_POSITIONS) {
      const forced = prompt.slice(begin, begin + PROMPT_POSITIONS);
      const read = await this.call(row, { ...settings, top: request.echo ? settings.top : 0 }, { forced });
      if (request.echo) echoed.push(...this.#describeTokens(read, reader));
      row = read.row;
    }
    if (echoed.length) {
      if (!request.session) echoed[0].logprob = null; // nothing stands before it
      request.onPrompt?.(echoed);
    }
    if (prompt.length) text.readPrompt(this.#decode(prompt));
    else text.takeHeldBack();
    const release = () => {
      const tokens = text.release();
      if (tokens.length) request.onText?.({ text: tokens.map((token) => token.text).join(""), tokens });
    };
    release();
    let size = FIRST_POSITIONS;
    while (!text.finish) {
      if (request.signal?.aborted) {
        text.abort();
      } else {
        const left = this.tokenizer.isPerCharacter ? settings.length - text.characters : Infinity;
        const count = Math.min(size, left);
        const startedAt = performance.now();
        const drawn = await this.call(row, settings, { count });
        if (performance.now() - startedAt < FAST_MILLISECONDS) size = Math.min(2 * size, MOST_POSITIONS);
        row = await this.#feed(text, drawn, row, settings, count);
      }
      release();
      await yieldThread();
    }
    const session = { file: this.#fingerprint, row, text: text.state, settings: checked };
    return { text: text.text, tokens: text.tokens, finish: text.finish, seed: settings.seed, session };
  }

  /** Return the tokens of a call as the interface of an engine has them. */
  #describeTokens({ tokens, logprobs, top }, reader) {
    return tokens.map((token, position) => ({
      text: reader.read(this.tokenizer.symbols[token]),
      logprob: logprobs[position],
      top: this.#describeTop(top[position]),
    }));
  }

  #describeTop(pairs = []) {
    return pairs.map(([token, logprob]) => [this.tokenizer.texts[token], logprob]);
  }

  /**
   * Feed what a call has drawn to a text; return the state of the row after the last symbol that belongs to it. That of
   * a record is in front of its end: whoever goes on with the same seed draws the end again.
   */
  async #feed(text, drawn, before, settings, count) {
    let used = 0;
    for (const token of drawn.tokens) {
      if (token < 0 || text.finish) break;
      const details = { logprob: drawn.logprobs[used], top: this.#describeTop(drawn.top[used]) };
      if (token === this.tokenizer.boundary) text.endRecord(details);
      else text.feed(this.tokenizer.symbols[token], details);
      used += 1;
    }
    if (!text.finish && drawn.finish) text.end(drawn.finish);
    if (text.finish === "end") used -= 1;
    if (used === count) return drawn.row;
    // The same symbols again, and no further ones: a row depends on its own state and noise alone.
    return used ? (await this.call(before, settings, { count: used })).row : before;
  }

  /**
   * Run the graph for the positions of `forced`, or for `count` positions that draw.
   *
   * @param {object} row the state of a row, of `firstRow` or of an earlier call; it is not changed
   * @param {object} settings as `readSettings` returns them
   * @param {{forced?: number[], count?: number}} positions `forced` are tokens that are read
   * @returns {Promise<{tokens: number[], logprobs: number[], top: Array, finish: string | null, row: object}>}
   */
  async call(row, settings, { forced = null, count = forced?.length }) {
    const noise = forced ? new Float32Array(count * this.#columns) : this.#drawNoise(row.drawn, count, settings);
    const feeds = { ...this.defaults, ...this.#tensors(row.arrays), ...this.#parameterTensors(settings), ...settings.inputs };
    feeds.token = this.#tensor("int64", [1], [row.token]);
    feeds.fresh = this.#tensor("bool", [1], [row.isFresh ? 1 : 0]);
    feeds.ended = this.#tensor("int64", [1], [0]);
    feeds.forced = this.#tensor("int64", [count, 1], forced ?? new Array(count).fill(-1));
    feeds.noise = this.#tensor("float32", [count, 1, this.#columns], noise);
    if (settings.top) feeds.top_count = this.#tensor("int64", [], [settings.top]);
    const results = await guard(this.name, this.bytes, () => this.session.run(feeds));
    const tokens = Array.from(results.tokens.data, Number);
    return {
      tokens,
      logprobs: Array.from(results.logprobs.data),
      top: settings.top ? pairTop(results, count) : [],
      finish: FINISH_BY_CODE[Number(results.ended_out.data[0])],
      row: {
        arrays: Object.fromEntries(this.states.map(({ name }) => [name, results[`${name}_out`].data.slice()])),
        token: Math.max(0, tokens[count - 1]),
        isFresh: false,
        drawn: row.drawn + (forced ? 0 : count),
      },
    };
  }

  get #hasMatch() {
    return this.metadata.chain.some(({ name }) => name === MATCH_LINK);
  }

  /** Return a row that from here on follows the expression of the settings, or none, and the inputs that it needs. */
  #beginMatch(row, { match, length }) {
    if (!this.#hasMatch) return { row, inputs: {} };
    const { symbols, unknown, boundary } = this.tokenizer;
    const bans = Object.entries(this.defaults).filter(([name]) => name.endsWith(".banned"));
    const isAllowed = symbols.map((_, token) => token !== unknown && bans.every(([, { data }]) => !data[token]));
    const { arrays, inputs } = beginMatch(match, length, { symbols, isAllowed, boundary });
    const tensors = inputs.map(([name, type, dims, data]) => [name, new this.ort.Tensor(type, data, dims)]);
    return { row: { ...row, arrays: { ...row.arrays, ...arrays } }, inputs: Object.fromEntries(tensors) };
  }

  get #columns() {
    return this.noise.reduce((sum, [, columns]) => sum + columns, 0);
  }

  get #fingerprint() {
    return this.metadata.card.fingerprint ?? null;
  }

  /** The row that has read nothing: `fresh` makes the graph set its first states. */
  firstRow() {
    const arrays = this.states.map(({ name, type, dims }) => [name, new ELEMENT_ARRAYS[type](elementCount(dims))]);
    return { arrays: Object.fromEntries(arrays), token: this.metadata.start, isFresh: true, drawn: 0 };
  }

  #startText(session, settings) {
    if (!session) return { unfinished: [], tail: "", heldBack: "" };
    const isSameStop = session.settings.stop.join("\0") === settings.stop.join("\0");
    return { ...session.text, tail: isSameStop ? session.text.tail : "" };
  }

  #decode(tokens) {
    const bytes = tokens.flatMap((token) => [...this.tokenizer.symbols[token]]);
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes));
  }

  /** Return the noise of a call: for each position the numbers of the links in order, then that of the draw. */
  #drawNoise(position, count, { seed, stream }) {
    const noise = new Float32Array(count * this.#columns);
    let column = 0;
    for (const [name, columns] of this.noise) {
      const numbers = uniforms(seed, stream, name, position, count, columns);
      for (let index = 0; index < numbers.length; index++) {
        noise[Math.floor(index / columns) * this.#columns + column + (index % columns)] = numbers[index];
      }
      column += columns;
    }
    return noise;
  }

  #tensor(type, dims, elements) {
    const data = type === "int64" ? BigInt64Array.from(elements, BigInt) : ELEMENT_ARRAYS[type].from(elements);
    return new this.ort.Tensor(type, data, dims);
  }

  #tensors(arrays) {
    const tensors = this.states.map(({ name, type, dims }) => [name, new this.ort.Tensor(type, arrays[name], dims)]);
    return Object.fromEntries(tensors);
  }

  #parameterTensors({ parameters }) {
    const tensors = Object.entries(parameters).map(([name, number]) => {
      return [name, this.#tensor(this.defaults[name].type, [1, 1], [number])];
    });
    return Object.fromEntries(tensors);
  }

  /** Return the settings of a request, checked; what it leaves out is that of its session. */
  readSettings(request) {
    return readSettings(request, { chain: this.metadata.chain, fingerprint: this.#fingerprint });
  }
}

const elementCount = (dims) => dims.reduce((product, size) => product * size, 1);

/** Return for each position pairs of a token and its log-probability. */
function pairTop({ top_tokens: tokens, top_logprobs: logprobs }, count) {
  const width = tokens.data.length / count;
  return Array.from({ length: count }, (_, position) =>
    Array.from({ length: width }, (_, rank) => {
      const index = position * width + rank;
      return [Number(tokens.data[index]), logprobs.data[index]];
    }),
  );
}

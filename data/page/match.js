/** What a text must match, as the tables that the link `match` of a generator reads; see gentext/match_tables.py. */

import { EngineError } from "./errors.js";
import { readExpression } from "./expression.js";

/** The name of the link. */
export const MATCH_LINK = "match";
/** The states of a row that follows no expression, of one behind which nothing can follow, and the first of an automaton. */
const [FREE_STATE, DONE_STATE, FIRST_STATE] = [0, 1, 2];
/** States of the tables, and states times symbols, at most. */
const [MAX_STATES, MAX_TABLE] = [2 ** 16, 2 ** 20];
/** All characters, without the surrogates and the last plane, as in Python. */
const ALL_CHARACTERS = [
  [0, 0xd7ff],
  [0xe000, 0xfffff],
];

/**
 * Return the tables for an expression, and the states in which its texts begin.
 *
 * @param {string} expression as `re` of Python reads it; `expression.js` tells which parts of it can be used
 * @param {{symbols: Uint8Array[], isAllowed: boolean[], boundary: number | null}} model `isAllowed` is which symbols are
 *     drawn at all; `boundary` ends a record
 * @returns {{tables: object, firstState: (length: number) => number}} `firstState` is that of a text of so many characters
 * @throws {EngineError} parameter
 */
export function compileMatch(expression, { symbols, isAllowed, boundary }) {
  const title = `match = ${JSON.stringify(expression)}`;
  try {
    const automaton = readExpression(expression, readAlphabet(symbols.filter((_, token) => isAllowed[token])));
    const characters = symbols.map((symbol) => symbol.filter((byte) => (byte & 0xc0) !== 0x80).length);
    const explored = explore(automaton, symbols, isAllowed);
    const distances = measureDistances(explored, characters);
    if (distances[0] < 0) {
      throw new EngineError("parameter", "no text of the model's symbols matches it");
    }
    const tables = makeTables(keepLive(explored, distances), characters, boundary);
    const firstState = (length) => {
      if (distances[0] > length) {
        const least = `the shortest text that ${title} matches has ${distances[0]} characters`;
        throw new EngineError("parameter", `length = ${length}: ${least}; allow at least so many`);
      }
      return tables.least_need[FIRST_STATE] > length ? DONE_STATE : FIRST_STATE;
    };
    return { tables, firstState };
  } catch (error) {
    throw error instanceof EngineError ? new EngineError(error.code, `${title}: ${error.message}`) : error;
  }
}

/**
 * Return what a row needs that follows an expression from here on, or none for "": the `arrays` of its state, by name, and
 * the `inputs` of the graph, `[name, type, dims, data]`.
 *
 * @throws {EngineError} parameter, as `compileMatch` does, or for a length that no text fits into
 */
export function beginMatch(expression, length, model) {
  const compiled = expression ? compileMatch(expression, model) : null;
  const [state, left] = [compiled?.firstState(length) ?? FREE_STATE, length].map((number) => BigInt64Array.of(BigInt(number)));
  const arrays = { state, left, ended: Uint8Array.of(0) };
  // A row that is fresh has its states from the parameters.
  const inputs = [
    ["first_state", "int64", [1, 1], state],
    ["budget", "int64", [1, 1], left],
  ];
  for (const [name, table] of Object.entries(compiled?.tables ?? {})) {
    const width = model.symbols.length;
    const dims = ["next_state", "need"].includes(name) ? [table.length / width, width] : [table.length];
    inputs.push([name, table instanceof Float32Array ? "float32" : "int64", dims, table]);
  }
  return {
    arrays: Object.fromEntries(Object.entries(arrays).map(([name, array]) => [`${MATCH_LINK}.${name}`, array])),
    inputs: inputs.map(([name, ...input]) => [`${MATCH_LINK}.${name}`, ...input]),
  };
}

/** Return the characters that symbols can write, as ranges of codes: all where a symbol is a part of a character. */
function readAlphabet(symbols) {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true, fatal: true });
  try {
    const characters = new Set(symbols.flatMap((symbol) => [...decoder.decode(symbol)]));
    const codes = [...characters].map((character) => character.codePointAt(0));
    return codes.sort((one, other) => one - other).map((code) => [code, code]);
  } catch {
    return ALL_CHARACTERS;
  }
}

/**
 * Return the states that symbols reach, each a set of states of the automaton, with the first one in front.
 *
 * @returns {{next: Int32Array[], final: boolean[]}} `next` has for each state the state behind each symbol, or -1
 */
function explore({ edges, jumps, start, end }, symbols, isAllowed) {
  const close = (states) => {
    const reached = new Set(states);
    reached.forEach((state) => jumps[state].forEach((target) => reached.add(target))); // it grows while it is read
    return [...reached].filter((state) => edges[state].length > 0 || state === end).sort((one, other) => one - other);
  };
  const readByte = (states, byte) =>
    close(states.flatMap((state) => edges[state].filter(([low, high]) => low <= byte && byte <= high).map(([, , to]) => to)));
  const [sets, numbers, next] = [[], new Map(), []];
  const numberOf = (states) => {
    const key = states.join();
    if (!numbers.has(key)) {
      numbers.set(key, sets.length);
      sets.push(states);
    }
    return numbers.get(key);
  };
  numberOf(close([start]));
  for (const states of sets) {
    const most = Math.min(MAX_STATES, Math.floor(MAX_TABLE / symbols.length));
    if (sets.length > most) {
      throw new EngineError("parameter", `it needs more than ${most} states, which are possible at most; make it simpler`);
    }
    const usable = (symbol, token) => isAllowed[token] && symbol.length > 0;
    const read = (symbol) => symbol.reduce((reached, byte) => (reached.length ? readByte(reached, byte) : reached), states);
    const behind = symbols.map((symbol, token) => (usable(symbol, token) ? read(symbol) : []));
    next.push(Int32Array.from(behind, (reached) => (reached.length ? numberOf(reached) : -1)));
  }
  return { next, final: sets.map((states) => states.includes(end)) };
}

/** Return the least number of characters from each state to the end of a text; -1 where there is no way. */
function measureDistances({ next, final }, characters) {
  const sources = final.map(() => []);
  next.forEach((row, state) => row.forEach((target, token) => target >= 0 && sources[target].push([state, characters[token]])));
  const distances = final.map(() => -1);
  const states = [final.flatMap((isFinal, state) => (isFinal ? [state] : []))]; // by their distance
  for (let distance = 0; distance < states.length; distance++) {
    // It grows while it is read, as a part of a character begins none.
    for (const state of states[distance] ?? []) {
      if (distances[state] >= 0) continue;
      distances[state] = distance;
      sources[state].forEach(([source, count]) => (states[distance + count] ??= []).push(source));
    }
  }
  return distances;
}

/** Leave out the states that reach no end; return the others with their distances. */
function keepLive({ next, final }, distances) {
  const live = distances.flatMap((distance, state) => (distance >= 0 ? [state] : []));
  const numbers = new Map(live.map((state, number) => [state, number]));
  return {
    next: live.map((state) => next[state].map((target) => numbers.get(target) ?? -1)),
    final: live.map((state) => final[state]),
    distances: live.map((state) => distances[state]),
  };
}

/** Return the tables of the link by name, as `gentext.matching.match_tables.link_tables` describes them. */
function makeTables({ next, final, distances }, characters, boundary) {
  const width = characters.length;
  const size = 2 ** Math.ceil(Math.log2(FIRST_STATE + next.length));
  const nextState = new BigInt64Array(size * width);
  const [need, leastNeed] = [new Float32Array(size * width), new Float32Array(size)];
  for (const [state, row] of next.entries()) {
    const own = FIRST_STATE + state;
    const endsAnywhere = boundary === null && final[state];
    const needs = Array.from(row, (target, token) => (target < 0 ? Infinity : characters[token] + distances[target]));
    for (const [token, target] of row.entries()) {
      const place = own * width + token;
      nextState[place] = BigInt(target >= 0 ? target + FIRST_STATE : endsAnywhere ? FREE_STATE : own);
      need[place] = target < 0 && endsAnywhere ? 0 : needs[token];
    }
    if (boundary !== null) {
      need[own * width + boundary] = final[state] ? 0 : Infinity;
    }
    leastNeed[own] = endsAnywhere ? Math.min(...needs) : 0;
  }
  return {
    next_state: nextState,
    need,
    least_need: leastNeed,
    characters: BigInt64Array.from(characters, BigInt),
    states: BigInt64Array.of(BigInt(size)),
  };
}

/** A text as the fragment of an address: the steps that write it again. */

import { CUTS } from "./writer.js";

const VERSION = 1;

/**
 * Return the fragment that writes a text again.
 *
 * @param {string} model
 * @param {Piece} piece the last piece of the text
 */
export function makeLink(model, piece) {
  const steps = [];
  let last = null;
  for (const part of piece.path) {
    if (last?.continuesAs(part)) {
      Object.assign(steps.at(-1), writtenStep(part));
    } else {
      steps.push(part.isWritten ? writtenStep(part) : typedStep(part));
    }
    last = part;
  }
  return encode({ version: VERSION, model, steps, check: checkOf(piece) });
}

/** Take the link out of the address: the text is another one from now on. */
export function forgetLink() {
  if (location.hash) {
    history.replaceState(null, "", location.pathname + location.search);
  }
}

/** Return what a fragment says, `{model, steps, check}`; null for an empty one. Throws Error for one that is no link. */
export function readLink(fragment) {
  if (fragment === "" || fragment === "#") {
    return null;
  }
  const code = fragment.match(/^#text=([\w-]+)$/)?.[1];
  if (!code) {
    throw new Error("no link to a text");
  }
  const { version, model, steps, check } = decode(code);
  if (version !== VERSION || !Array.isArray(steps) || !steps.every(isStep)) {
    throw new Error("not a link of this version");
  }
  return { model, steps, check };
}

function writtenStep(piece) {
  const { request, end, finish } = piece;
  return { write: request, characters: end, isCut: CUTS.has(finish) };
}

/** Return the step of a piece that no request writes again; `isByModel` where the model wrote it elsewhere. */
function typedStep({ text, isEnded, isByModel }) {
  return { text, isEnded: isEnded || undefined, isByModel: isByModel || undefined };
}

function isStep(step) {
  if (typeof step?.text === "string") {
    return true;
  }
  const { write, characters, isCut } = step ?? {};
  const isRequest = Number.isSafeInteger(write?.seed) && Array.isArray(write.stop) && typeof write.parameters === "object";
  return isRequest && write.length > 0 && characters >= (isCut ? 1 : 0) && characters <= write.length;
}

/** Return a number that tells the texts of pieces apart, and records that have ended from those that have not. */
export function checkOf(piece) {
  return checksum(piece.fullText + (piece.isEnded ? "\0" : ""));
}

/** FNV-1a, 32 bits. */
function checksum(text) {
  let sum = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) {
    sum = Math.imul(sum ^ byte, 0x01000193) >>> 0;
  }
  return sum;
}

function encode(content) {
  const bytes = new TextEncoder().encode(JSON.stringify(content));
  const letters = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  return `#text=${btoa(letters).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`;
}

function decode(code) {
  const letters = atob(code.replaceAll("-", "+").replaceAll("_", "/"));
  return JSON.parse(new TextDecoder().decode(Uint8Array.from(letters, (letter) => letter.charCodeAt(0))));
}

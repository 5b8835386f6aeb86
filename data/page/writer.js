/** Writes behind the current piece of the tree, and goes on when a session, a key or the server is gone. */

import { EngineError } from "./errors.js";
import { pause } from "./waiting.js";

/** The most probable symbols that each token has. */
export const TOP_COUNT = 10;
/** Characters of a prompt whose tokens are asked for, so that what was typed gets its colours. */
const MOST_ECHOED = 20_000;
/** How often a busy server is asked again. */
const BUSY_ATTEMPTS = 20;
/** What ends a piece that could have gone on; no session behind it is used, as a link could not repeat it. */
export const CUTS = new Set(["abort", "cut", "lost", "split"]);

export class Writer {
  #controller = null;
  #busyAttempts = 0;

  /**
   * @param engine what writes, see docs/browser.md
   * @param {object} defaults the parameters of the chain: a session would bring those of the text before
   * @param {Vocabulary} vocabulary
   * @param {Tree} tree
   * @param {{onText: () => void, say: (message: string, kind?: string) => void, askKey: (isWrong: boolean) =>
   *     Promise<string | null>}} view
   */
  constructor(engine, defaults, vocabulary, tree, view) {
    Object.assign(this, { engine, defaults, vocabulary, tree, view });
  }

  get isWriting() {
    return this.#controller !== null;
  }

  stop() {
    this.#controller?.abort();
  }

  /**
   * Write behind the current piece, and return whether it could be done.
   *
   * @param {{seed: number, length: number, parameters: object, stop: string[], match: string, isAnew?: boolean,
   *     skipsUnknown?: boolean}} wish `isAnew` says that the whole text is read again, whatever sessions there are;
   *     `skipsUnknown` that the model reads the text without the characters that it does not know
   */
  async write(wish) {
    this.#controller = new AbortController();
    this.#busyAttempts = 0;
    const { signal } = this.#controller;
    let left = wish.length;
    try {
      for (;;) {
        const { count, error } = await this.#attempt({ ...wish, length: left }, signal);
        left -= count;
        if (signal.aborted) {
          return error === null;
        }
        if (error === null || left <= 0) {
          return true;
        }
        if (wish.match && count > 0) {
          this.view.say(`${sentence(error.message)} What was written does not match; take it back and write again.`, "error");
          return false;
        }
        if (!(await this.#recover(error, signal))) {
          return false;
        }
      }
    } finally {
      this.#controller = null;
    }
  }

  /** Write one piece; return how many characters it has, and the error that ended it, or null. */
  async #attempt(wish, signal) {
    const { session, begin } = wish.isAnew ? { session: null, begin: 0 } : this.#findSession();
    const unread = this.tree.text.slice(begin);
    const prompt = wish.skipsUnknown ? this.vocabulary.skipUnknown(unread) : unread;
    const isUnread = this.tree.current.path.some((piece) => piece.tokens.length === 0);
    const request = { ...wish, isAnew: session === null };
    const piece = this.tree.grow(this.tree.current, "", request);
    let error = null;
    try {
      const result = await this.engine.write({
        ...this.#engineRequest(request),
        prompt,
        session,
        signal,
        echo: isUnread && prompt.length > 0 && prompt.length < MOST_ECHOED,
        onPrompt: (tokens) => {
          this.tree.setTokens(begin, this.vocabulary.insertUnknown(unread, tokens));
          this.view.onText();
        },
        onText: ({ text, tokens }) => {
          piece.text += text;
          piece.tokens.push(...tokens);
          this.view.onText();
        },
      });
      piece.finish = result.finish;
      takeEnding(piece);
      piece.session = CUTS.has(result.finish) ? null : result.session;
      if (result.finish === "cut") {
        error = new EngineError("network", "the server ends");
      }
    } catch (reason) {
      piece.finish = "lost";
      error = reason instanceof EngineError ? reason : new EngineError("runtime", String(reason));
    }
    if (piece.text === "" && !piece.isEnded) {
      this.tree.remove(piece);
      if (error === null && !signal.aborted) {
        error = new EngineError("empty", emptyReason(piece.finish));
      }
    }
    this.view.onText();
    return { count: piece.text.length, error };
  }

  /** Return the fields of a request that every engine knows. */
  #engineRequest({ seed, length, parameters, stop, match }) {
    const allParameters = { ...this.defaults, ...parameters };
    return { seed, length, parameters: allParameters, stop, match: match || undefined, logprobs: TOP_COUNT };
  }

  /** Return the last session on the way to the current piece, and how many characters stand before it. */
  #findSession() {
    let begin = this.tree.text.length;
    for (const piece of this.tree.current.path.reverse()) {
      if (piece.session !== null) {
        return { session: piece.session, begin };
      }
      begin -= piece.text.length;
    }
    return { session: null, begin: 0 };
  }

  /** Do what an error asks for, and return whether to try again. */
  async #recover(error, signal) {
    switch (error.code) {
      case "session":
        if (!this.tree.pieces.some((piece) => piece.session !== null)) {
          break;
        }
        this.tree.pieces.forEach((piece) => (piece.session = null));
        this.view.say("The server no longer knows the session of this text, and reads the text anew.");
        return true;
      case "key": {
        const key = await this.view.askKey(this.engine.hasKey);
        if (key !== null) {
          this.engine.setKey(key);
          return true;
        }
        this.view.say("The server writes only with an API key.", "error");
        return false;
      }
      case "busy": {
        const seconds = error.seconds || 1;
        this.#busyAttempts += 1;
        if (this.#busyAttempts > BUSY_ATTEMPTS) {
          break;
        }
        this.view.say(`The server is busy. The next attempt is in ${seconds} s; Esc gives up.`, "waiting");
        await pause(1000 * seconds, signal);
        return !signal.aborted;
      }
      case "network":
        if (this.engine.waitUntilReady) {
          return waitForServer(this.engine, this.view, error.message, signal);
        }
    }
    this.view.say(sentence(error.message), "error");
    return false;
  }
}

/** Wait until a server that is gone answers again; return whether it does. */
export async function waitForServer(engine, view, message, signal) {
  view.say(`${sentence(message)} The text so far stays here. Waiting for the server; Esc gives up.`, "waiting");
  await engine.waitUntilReady(signal).catch(() => {});
  if (!signal.aborted) {
    view.say("The server is there again.", "passing");
  }
  return !signal.aborted;
}

/** Take the end of a record out of the tokens of its text: something else may once stand in its place. */
function takeEnding(piece) {
  const last = piece.tokens.at(-1);
  if (piece.isEnded && last) {
    piece.ending = { ...last, text: "" };
    piece.tokens = last.text === "" ? piece.tokens.slice(0, -1) : piece.tokens;
  }
}

function emptyReason(finish) {
  if (finish === "stop") {
    return "the text would end here at once, at a stop string";
  }
  return finish === "masked" ? "the chain leaves no symbol to draw" : "there is nothing to write here";
}

/** Return a message as a sentence. */
export function sentence(message) {
  const text = message.trim();
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

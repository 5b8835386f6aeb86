/** An engine that asks `gen serve`. docs/browser.md describes the interface of all engines. */

import { EngineError } from "./errors.js";
import { readEvents } from "./server_events.js";
import { pause } from "./waiting.js";

/** Milliseconds between two questions whether a server that was gone is there again. */
const READY_PAUSE = 700;

/** The codes of `EngineError` by the status of an answer; all others are an error of the request. */
const CODE_BY_STATUS = { 401: "key", 429: "busy", 500: "runtime", 502: "network", 503: "network", 504: "network" };

export class ServerEngine {
  /** The key of the API, in memory alone. */
  #key = "";
  #models = [];
  #name = null;

  static async open() {
    return new ServerEngine();
  }

  /** The names of all models of the server, once `describe` has been called. */
  get names() {
    return this.#models.map((model) => model.id);
  }

  /** Use another model. */
  choose(name) {
    this.#name = name;
  }

  get hasKey() {
    return this.#key !== "";
  }

  /** Use this key of the API from now on. */
  setKey(key) {
    this.#key = key;
  }

  async describe() {
    const answer = await this.#ask("v1/models");
    this.#models = (await answer.json()).data;
    const model = this.#models.find(({ id }) => id === this.#name) ?? this.#models[0];
    this.#name = model.id;
    return {
      name: model.id,
      chain: Object.entries(model.chain).flatMap(([link, params]) =>
        Object.entries(params).map(([param, limits]) => ({ link, param, ...limits })),
      ),
      symbols: model.symbols,
      abilities: { match: "match" in model.chain, jsonSchema: "match" in model.chain, best: true, score: true, top: 10 },
      records: model.records,
      card: { summary: model.summary, corpus: model.corpus, parameters: model.parameters },
      documentation: true,
    };
  }

  /**
   * Write a text. Besides the fields of all engines, `echo` asks for the tokens of the prompt: `onPrompt` is called with
   * them. Raises an `EngineError` when the server is gone; `onText` then had all that came before.
   */
  async write(request) {
    const { signal } = request;
    const written = { text: "", tokens: [], finish: "abort", seed: request.seed ?? null, session: null };
    try {
      const answer = await this.#ask("v1/completions", { body: this.#body(request), signal });
      for await (const piece of readEvents(answer.body, request.echo ? request.prompt : "")) {
        this.#take(piece, request, written);
      }
    } catch (error) {
      if (!signal?.aborted) {
        throw error instanceof EngineError ? error : unreachable();
      }
    }
    if (written.finish === "abort" && !signal?.aborted) {
      throw unreachable();
    }
    return written;
  }

  #take(piece, request, written) {
    if (piece.error) {
      // An error of the server in the middle of a text, such as a worker that was killed: it may go on at once.
      throw problem(piece.error.type === "server_error" ? 503 : 400, piece.error);
    }
    if (piece.promptTokens.length > 0) {
      request.onPrompt?.(piece.promptTokens);
    }
    written.text += piece.text;
    written.tokens.push(...piece.tokens);
    written.seed = piece.seed;
    if (piece.text || piece.tokens.length > 0) {
      request.onText?.({ text: piece.text, tokens: piece.tokens });
    }
    if (piece.finish) {
      written.finish = piece.finish;
      written.session = piece.session;
    }
  }

  /** Wait until a server that was gone, or was about to end, answers again. */
  async waitUntilReady(signal) {
    while (!signal.aborted) {
      await pause(READY_PAUSE, signal);
      const answer = await fetch("ready", { signal, cache: "no-store" }).catch(() => null);
      if (answer?.ok) {
        return;
      }
    }
  }

  close() {}

  #body({ prompt = "", session, seed, length = 200, parameters = {}, stop = [], match, logprobs = 0, echo, unknown }) {
    return JSON.stringify({
      model: this.#name,
      prompt,
      session: session ?? undefined,
      seed,
      max_tokens: length,
      stop,
      match: match || undefined,
      logprobs: logprobs || undefined,
      echo: echo || undefined,
      unknown,
      stream: true,
      ...parameters,
    });
  }

  async #ask(path, { body, signal } = {}) {
    const headers = body ? { "Content-Type": "application/json" } : {};
    if (this.#key) {
      headers.Authorization = `Bearer ${this.#key}`;
    }
    let answer;
    try {
      answer = await fetch(path, { method: body ? "POST" : "GET", headers, body, signal, cache: "no-store" });
    } catch (error) {
      throw signal?.aborted ? error : unreachable();
    }
    if (!answer.ok) {
      const content = await answer.json().catch(() => ({}));
      throw problem(answer.status, content.error ?? {}, Number(answer.headers.get("Retry-After")) || 0);
    }
    return answer;
  }
}

/** Return the error for what the server answered; `seconds` is when to ask again. */
function problem(status, { message, code }, seconds = 0) {
  const kind = code?.startsWith("session") ? "session" : (CODE_BY_STATUS[status] ?? "parameter");
  const error = new EngineError(kind, message ?? `the server answered with status ${status}`);
  error.seconds = seconds;
  return error;
}

function unreachable() {
  return new EngineError("network", "the server does not answer");
}

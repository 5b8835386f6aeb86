/** Opens the engine and its model, and waits for a server or a key where that needs one. */

import { openEngine } from "./engine.js";
import { sentence, waitForServer } from "./writer.js";

export class ModelOpener {
  #engine = null;
  /** What the engine says of its model; null until there is one. */
  model = null;
  /** Parameters that the sliders get with the first model. */
  parameters = {};

  /** `onEngine` is called with the engine each time that it has another model. */
  constructor(furniture, sliders, onEngine) {
    Object.assign(this, { furniture, sliders, onEngine });
  }

  /** The names of the models that can be chosen. */
  get names() {
    return this.#engine?.names ?? [];
  }

  /** Open the engine, and return whether there is a model. */
  async open() {
    this.furniture.say("Opening the model…", "waiting");
    for (;;) {
      try {
        this.#engine ??= await openEngine({ onProgress: (progress) => this.furniture.showProgress(progress) });
        await this.#describe(this.parameters);
        this.furniture.say("");
        return true;
      } catch (error) {
        if (!(await this.#recover(error))) {
          return false;
        }
      }
    }
  }

  /** Use another model of the engine. */
  async choose(name) {
    this.#engine.choose(name);
    try {
      await this.#describe(this.sliders.parameters);
    } catch (error) {
      this.furniture.say(sentence(error.message), "error");
    }
  }

  async #describe(parameters) {
    this.model = await this.#engine.describe();
    this.furniture.showModel(this.model, this.names);
    this.sliders.build(this.model);
    this.sliders.parameters = parameters;
    this.onEngine(this.#engine);
  }

  /** Do what an error asks for; return whether to try again. */
  async #recover(error) {
    if (error.code === "key" && this.#engine) {
      const key = await this.furniture.askKey(this.#engine.hasKey);
      if (key !== null) {
        this.#engine.setKey(key);
        return true;
      }
      this.furniture.say("The server answers only with an API key. Load the page again to give one.", "error");
      return false;
    }
    if (error.code === "network" && this.#engine?.waitUntilReady) {
      return waitForServer(this.#engine, this.furniture, error.message, new AbortController().signal);
    }
    this.furniture.say(sentence(error.message), "error");
    return false;
  }
}

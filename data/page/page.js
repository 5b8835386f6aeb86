/** The page: connects the text, the tree, the settings and the engine. */

import { Alternatives } from "./alternatives.js";
import { Furniture } from "./furniture.js";
import { LinkFollower } from "./link_follower.js";
import { forgetLink } from "./links.js";
import { Memory } from "./memory.js";
import { ModelOpener } from "./model_opener.js";
import { Sliders } from "./sliders.js";
import { Surface } from "./surface.js";
import { TextKeys } from "./text_keys.js";
import { neighbour, TreeDrawing } from "./tree_drawing.js";
import { Tree } from "./tree.js";
import { describeUnknown, Vocabulary } from "./vocabulary.js";
import { Welcome } from "./welcome.js";
import { Wishes } from "./wishes.js";
import { Writer } from "./writer.js";

/** Milliseconds after which what is typed can be undone by itself. */
const TYPING_PAUSE = 1200;

const find = (id) => document.getElementById(id);

class Page {
  #typedAt = -Infinity;
  #writer = null;
  /** Whether a text is written, or the last of it is still to be shown. */
  #isBusy = false;
  #vocabulary = new Vocabulary();
  /** Whether the model writes although it does not know every character of the text. */
  #skipsUnknown = false;
  tree = new Tree();

  constructor() {
    const [textarea, backdrop] = [find("text"), document.querySelector(".backdrop")];
    this.furniture = new Furniture(find, (action) => this.act(action));
    this.surface = new Surface({ textarea, backdrop }, this.tree, { onEdit: (...change) => this.#edit(...change) });
    this.drawing = new TreeDrawing(find("tree"), this.tree, { onWalk: (piece) => this.#walk(piece, false) });
    this.welcome = new Welcome(find("welcome"), (text) => this.#begin(text));
    this.wishes = new Wishes(find, () => this.memory.keep());
    this.sliders = new Sliders(find("sliders"), () => this.memory.keep());
    this.alternatives = new Alternatives(find("alternatives"), {
      onChoose: (symbol, text) => this.#branch(symbol, text),
      onClose: () => textarea.focus(),
      onEscape: () => this.keys.freeTab(),
    });
    this.keys = new TextKeys(textarea, this.alternatives, {
      onAction: (action) => this.act(action),
      onEscape: () => this.furniture.hint("Tab leaves the text now. After any other key, it writes on again."),
    });
    textarea.addEventListener("click", (event) => this.#showAlternatives(event));
    this.memory = new Memory(find("remember"), this);
    this.opener = new ModelOpener(this.furniture, this.sliders, (engine) => this.#useEngine(engine));
    this.follower = new LinkFollower(this, (request) => this.#run(request));
    addEventListener("hashchange", () => this.#openLink());
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.act("stop"));
  }

  async open() {
    this.memory.recall();
    this.show();
    if (await this.opener.open()) {
      await this.#openLink();
    }
  }

  /** Show the current text, and what can be done with it. */
  show() {
    this.surface.render();
    this.drawing.draw();
    this.#showActions();
    this.memory.keep();
  }

  /** Use another model of the engine. */
  async changeModel(name) {
    this.tree.pieces.forEach((piece) => (piece.session = null)); // they belong to the other file
    await this.opener.choose(name);
  }

  /** Do what a button or a key is for. */
  act(action) {
    this.#typedAt = -Infinity;
    if (this.#isBusy) {
      if (action === "stop" || action === "write") {
        this.#writer.stop();
        this.surface.skip();
      }
      return;
    }
    switch (action) {
      case "write":
        this.#write();
        break;
      case "another":
        this.#writeAnother();
        break;
      case "undo":
      case "redo":
        this.tree[action]();
        this.show();
        break;
      case "up":
      case "down":
      case "left":
      case "right":
        this.#walk(neighbour(this.tree.current, action));
        break;
      case "alternatives":
        this.#showAlternatives(null);
        break;
      case "link":
        this.follower.copyLink();
        break;
      case "reset":
        this.sliders.reset();
        break;
      case "help":
        this.furniture.showKeys();
        break;
      case "model":
        this.changeModel(this.furniture.chosenModel);
    }
  }

  #useEngine(engine) {
    const { records, symbols } = this.opener.model;
    this.#vocabulary = new Vocabulary(symbols);
    this.surface.use(this.#vocabulary);
    this.welcome.show(this.opener.model, this.#vocabulary);
    this.alternatives.hasEnd = Boolean(records);
    this.wishes.suggestLength(records ? 2 * records.longest : null);
    this.#writer = new Writer(engine, this.sliders.defaults, this.#vocabulary, this.tree, {
      onText: () => this.#showGrowth(),
      say: (message, kind) => this.furniture.say(message, kind),
      askKey: (isWrong) => this.furniture.askKey(isWrong),
    });
    this.#showActions();
  }

  async #openLink() {
    await (this.#writer !== null && !this.#isBusy && this.follower.openLink());
  }

  #begin(text) {
    this.surface.textarea.focus();
    this.#edit(text, text.length, null);
    this.#write();
  }

  /** Write behind a piece, or another record where that is the end of one. */
  async #write(piece = this.tree.current) {
    if (piece.isEnded) {
      return this.#writeAnother();
    }
    const { problem } = this.wishes;
    if (problem !== null || this.#writer === null) {
      this.furniture.say(problem ?? "There is no model yet.", "error");
      return;
    }
    const unknown = this.#vocabulary.findUnknown(piece.fullText);
    if (unknown.length > 0 && !this.#skipsUnknown) {
      this.#offerToSkip(unknown, piece);
      return;
    }
    forgetLink();
    this.tree.remember();
    this.tree.walk(piece);
    const request = { ...this.wishes.request, seed: this.#chooseSeed(), parameters: this.sliders.parameters };
    await this.#run(unknown.length > 0 ? { ...request, skipsUnknown: true } : request);
    this.memory.keep();
  }

  /** Say which characters the model does not know, and offer to write without them from now on. */
  #offerToSkip(unknown, piece) {
    this.furniture.say(describeUnknown(unknown), "error", {
      label: unknown.length === 1 ? "Skip it" : "Skip them",
      onChoose: () => {
        this.#skipsUnknown = true;
        this.#write(piece);
        this.surface.textarea.focus();
      },
    });
  }

  /** A text that goes on keeps its seed, so that it is the same in one go or in many; a branch gets another one. */
  #chooseSeed() {
    const { session, children, request } = this.tree.current;
    const isFirst = children.length === 0;
    return session !== null && isFirst && this.wishes.gave(request.seed) ? request.seed : this.wishes.takeSeed();
  }

  async #run(request) {
    this.alternatives.close();
    this.furniture.say("");
    this.#isBusy = true;
    this.#showActions();
    const begin = this.tree.text.length;
    const isDone = await this.#writer.write(request);
    await this.surface.settle();
    this.#isBusy = false;
    this.show();
    this.furniture.tellLength(this.tree.text.length - begin);
    this.#sayEnd();
    return isDone;
  }

  #sayEnd() {
    if (this.tree.current.isEnded) {
      this.furniture.say("The record has ended. Write begins another one.");
    }
  }

  /** Write another text in place of the last one that was written. */
  #writeAnother() {
    let piece = this.tree.current;
    if (piece.isWritten || piece.isEnded) {
      while (piece.parent.continuesAs(piece)) {
        piece = piece.parent;
      }
      piece = piece.parent;
    }
    this.#write(piece);
  }

  /** Put another symbol in the place of one, and go on from there, or end the record there. */
  #branch({ begin, token }, text) {
    this.tree.remember();
    this.tree.walk(this.tree.locate(begin));
    if (text === "") {
      const [, logprob] = token.top.find(([symbol]) => symbol === "");
      this.tree.end({ text, logprob, top: token.top });
      this.show();
      this.#sayEnd();
      return;
    }
    this.tree.grow(this.tree.current, text);
    this.show();
    this.#write();
  }

  #edit(text, caret, selection) {
    const now = performance.now();
    if (now - this.#typedAt > TYPING_PAUSE) {
      this.tree.remember();
    }
    this.#typedAt = now;
    this.alternatives.close();
    forgetLink();
    this.tree.edit(text, caret, selection);
    this.show();
  }

  #walk(piece, takesFocus = true) {
    if (!piece || this.#isBusy) {
      return;
    }
    this.tree.remember();
    this.tree.walk(piece);
    this.show();
    if (takesFocus) {
      this.surface.moveCaret(this.tree.text.length);
    }
  }

  /** Show what else was probable at a click, or at the caret. */
  #showAlternatives(click) {
    const { selectionStart, selectionEnd } = this.surface.textarea;
    if (this.#isBusy || (click && selectionStart !== selectionEnd)) {
      return;
    }
    // A line end has no width; a click behind a line puts the caret before it.
    const isWithin = click === null || selectionStart < this.tree.text.length;
    const symbol =
      (click && this.surface.symbolAt(click.clientX, click.clientY)) ??
      (isWithin ? this.surface.symbolFrom(selectionStart) : null);
    if (symbol) {
      this.alternatives.open(symbol, click === null);
    }
  }

  #showGrowth() {
    this.surface.grow();
    if (this.drawing.current !== this.tree.current) {
      this.drawing.draw();
    }
  }

  #showActions() {
    this.furniture.showActions({
      isReady: this.#writer !== null,
      isWriting: this.#isBusy,
      canUndo: this.tree.canUndo,
      canRedo: this.tree.canRedo,
      canRepeat: this.tree.current.isWritten || this.tree.current.isEnded,
    });
  }
}

new Page().open();

/** Keeps the text and the settings in the browser, only when somebody asked for it. */

import { Piece } from "./piece.js";

const NAME = "gentext";

export class Memory {
  /**
   * @param {HTMLInputElement} box whether something is kept
   * @param {Page} page
   */
  constructor(box, page) {
    Object.assign(this, { box, page });
    box.addEventListener("change", () => (box.checked ? this.keep() : forget()));
  }

  /** Keep the text, where somebody asked for it. */
  keep() {
    const { tree, wishes, sliders, furniture } = this.page;
    if (!this.box.checked) {
      return;
    }
    const content = {
      tree: packTree(tree),
      wishes: wishes.state,
      parameters: sliders.parameters,
      furniture: furniture.state,
    };
    try {
      localStorage.setItem(NAME, JSON.stringify(content));
    } catch {
      this.box.checked = false;
      furniture.say("This browser stores nothing more for this page, so the text is not remembered.", "error");
    }
  }

  /** Show the text that was kept, if there is one. */
  recall() {
    const { tree, wishes, opener, furniture } = this.page;
    try {
      const content = JSON.parse(localStorage.getItem(NAME));
      if (content !== null) {
        unpackTree(tree, content.tree);
        wishes.state = content.wishes;
        opener.parameters = content.parameters;
        furniture.state = content.furniture;
        this.box.checked = true;
      }
    } catch {
      forget(); // what is there is not ours, or storage is turned off
    }
  }
}

function forget() {
  try {
    localStorage.removeItem(NAME);
  } catch {
    // nothing can be there where storage is turned off
  }
}

/** Return a tree as JSON can hold it; sessions and tokens are left out, but for the ends of records. */
function packTree(tree) {
  const pack = ({ text, request, begin, isByModel, finish, ending, children }) => ({
    text,
    request,
    begin,
    isByModel,
    finish,
    ending: ending ?? undefined,
    children: children.map(pack),
  });
  const places = tree.current.path.map((piece) => piece.parent.children.indexOf(piece));
  return { root: pack(tree.root), places };
}

/** Put a packed tree into an empty one. */
function unpackTree(tree, { root, places }) {
  const unpack = (parent, packed) => {
    const piece = new Piece(parent, packed.text, packed.request, packed.begin, packed.isByModel);
    Object.assign(piece, { finish: packed.finish, ending: packed.ending ?? null });
    piece.children = packed.children.map((child) => unpack(piece, child));
    return piece;
  };
  tree.root.children = root.children.map((child) => unpack(tree.root, child));
  tree.walk(places.reduce((piece, place) => piece.children[place], tree.root));
}

/** Writes the text of a link again, and makes links. */

import { checkOf, makeLink, readLink } from "./links.js";
import { CUTS } from "./writer.js";

export class LinkFollower {
  /**
   * @param {Page} page
   * @param {(request: object) => Promise<boolean>} run writes behind the current piece
   */
  constructor(page, run) {
    Object.assign(this, { page, run });
  }

  /** Put a link to the current text into the address and the clipboard. */
  async copyLink() {
    const { tree, furniture, opener } = this.page;
    if (tree.text === "" && !tree.current.isEnded) {
      furniture.say("There is no text yet to link to.", "passing");
      return;
    }
    history.replaceState(null, "", makeLink(opener.model.name, tree.current));
    const copying = navigator.clipboard?.writeText(location.href);
    const isCopied = await (copying?.then(() => true, () => false) ?? false);
    furniture.say(
      isCopied ? "Copied: a link that writes this text again." : "The address of the page now writes this text again.",
      "passing",
    );
  }

  /** Write the text of the link in the address, if there is one. */
  async openLink() {
    const { tree, furniture, opener } = this.page;
    let link;
    try {
      link = readLink(location.hash);
    } catch {
      furniture.say("The link in the address is damaged, so the page begins empty; expected one that the button Link has made.", "error");
      return;
    }
    if (link === null) {
      return;
    }
    if (link.model !== opener.model.name && opener.names.includes(link.model)) {
      await this.page.changeModel(link.model);
    }
    tree.remember();
    const written = tree.pieces.find((piece) => checkOf(piece) === link.check);
    if (written) {
      tree.walk(written); // as after a second look at the address of a text that is remembered
      this.page.show();
      return;
    }
    tree.walk(tree.root);
    for (const step of link.steps) {
      if (tree.current.isEnded) {
        break; // this record ends where that of the link went on
      }
      if (!(await this.#follow(step))) {
        return;
      }
    }
    if (checkOf(tree.current) !== link.check) {
      furniture.say(
        `This text is not quite that of the link, which was made with ${link.model}: the file is another one, or the machine.`,
        "error",
      );
    }
  }

  /** Do one step of a link, and return whether it could be done. */
  async #follow({ text, isEnded, isByModel = false, write, characters, isCut }) {
    const { tree, wishes, sliders } = this.page;
    if (text !== undefined) {
      if (isEnded) {
        tree.end(null);
      } else {
        tree.grow(tree.current, text, null, isByModel);
      }
      this.page.show();
      return true;
    }
    const begin = tree.text.length;
    // What must match is written whole, as its length decides what is possible.
    const isDone = await this.run({ ...write, length: isCut && !write.match ? characters : write.length });
    const { finish } = tree.current;
    if (isDone && isCut) {
      tree.walk(tree.locate(begin + characters));
      Object.assign(tree.current, { session: null, finish: CUTS.has(finish) ? finish : "split" });
      this.page.show();
    }
    wishes.follow(write.seed);
    sliders.parameters = write.parameters;
    return isDone;
  }
}

/** The tree of branches as a drawing: a row for each piece, a lane for each branch. */

const NAMESPACE = "http://www.w3.org/2000/svg";
const ROW = 26;
const LANE = 14;
const MARGIN = 12;
/** Characters of a piece beside its point. */
const SNIPPET = 26;

export class TreeDrawing {
  /** The piece that is marked as the current one. */
  current = null;

  /**
   * @param {SVGSVGElement} svg
   * @param {Tree} tree
   * @param {{onWalk: (piece: Piece) => void}} handlers
   */
  constructor(svg, tree, { onWalk }) {
    Object.assign(this, { svg, tree, onWalk });
    svg.addEventListener("keydown", (event) => this.#walkByKey(event));
  }

  draw() {
    this.current = this.tree.current;
    const hadFocus = this.svg.contains(document.activeElement);
    const pieces = [this.tree.root, ...this.tree.pieces];
    const path = new Set([this.tree.root, ...this.tree.current.path]);
    const places = arrange(pieces);
    const lanes = Math.max(...[...places.values()].map(({ lane }) => lane)) + 1;
    const height = pieces.length * ROW + MARGIN;
    this.svg.setAttribute("height", height);
    this.svg.style.setProperty("--lanes", lanes);
    this.svg.replaceChildren(
      ...pieces.slice(1).map((piece) => drawEdge(places.get(piece.parent), places.get(piece), path.has(piece))),
      ...pieces.map((piece) => this.#drawPoint(piece, places.get(piece), path, lanes)),
    );
    const current = this.svg.querySelector("[aria-current]");
    if (hadFocus) {
      current.focus({ preventScroll: true });
    }
    this.#scrollTo(places.get(this.tree.current).y);
  }

  #scrollTo(y) {
    const frame = this.svg.parentElement;
    if (y < frame.scrollTop + ROW || y > frame.scrollTop + frame.clientHeight - ROW) {
      frame.scrollTop = y - frame.clientHeight / 2;
    }
  }

  #drawPoint(piece, { x, y }, path, lanes) {
    const isCurrent = piece === this.tree.current;
    const group = make("g", {
      class: `point${path.has(piece) ? " on-path" : ""}${piece.isByModel ? " by-model" : ""}${piece.isEnded ? " ended" : ""}`,
      role: "treeitem",
      tabindex: isCurrent ? 0 : -1,
      "aria-level": piece.path.length + 1,
      "aria-label": describe(piece),
      "data-number": piece.number,
    });
    if (isCurrent) {
      group.setAttribute("aria-current", "true");
      group.setAttribute("aria-selected", "true");
    }
    const label = make("text", { x: MARGIN + lanes * LANE + 2, y: y + 4 });
    label.textContent = snippet(piece);
    const title = make("title", {});
    title.textContent = describe(piece);
    const area = make("rect", { class: "area", x: 1, y: y - ROW / 2 + 1, width: "99%", height: ROW - 2, rx: 6 });
    const radius = isCurrent ? 5.5 : 4;
    const point = piece.isEnded
      ? make("rect", { class: "sign", x: x - radius, y: y - radius, width: 2 * radius, height: 2 * radius, rx: 1 })
      : make("circle", { class: "sign", cx: x, cy: y, r: radius });
    group.append(title, area, point, label);
    group.addEventListener("click", () => this.onWalk(piece));
    return group;
  }

  #walkByKey(event) {
    const target = neighbour(this.tree.current, event.key.replace("Arrow", "").toLowerCase());
    if (target) {
      this.onWalk(target);
    }
    if (event.key.startsWith("Arrow")) {
      event.preventDefault();
    }
  }
}

/** Return the piece in a direction: `up` to the parent, `down` to the child last seen, `left` and `right` to siblings. */
export function neighbour(piece, direction) {
  const siblings = piece.parent?.children ?? [piece];
  const index = siblings.indexOf(piece);
  switch (direction) {
    case "up":
      return piece.parent;
    case "down":
      return piece.lastChild ?? piece.children[0] ?? null;
    case "left":
    case "right": {
      const next = siblings[index + (direction === "left" ? -1 : 1)] ?? null;
      return next ?? branchBeside(piece, direction);
    }
  }
  return null;
}

/** Where a piece has no sibling, another branch of the nearest piece above that has one. */
function branchBeside(piece, direction) {
  for (let above = piece.parent; above?.parent; above = above.parent) {
    const siblings = above.parent.children;
    const next = siblings[siblings.indexOf(above) + (direction === "left" ? -1 : 1)];
    if (next) {
      return lastOf(next);
    }
  }
  return null;
}

/** Return the piece at the end of the way that was last gone below another. */
export function lastOf(piece) {
  let last = piece;
  while (last.children.length > 0) {
    last = last.lastChild ?? last.children[0];
  }
  return last;
}

/** Return the row and the lane of each piece: a first child goes on in the lane of its parent. */
function arrange(pieces) {
  const places = new Map();
  let lanes = 0;
  for (const [row, piece] of pieces.entries()) {
    const isFirst = piece.parent?.children[0] === piece;
    const lane = isFirst ? places.get(piece.parent).lane : lanes++;
    places.set(piece, { lane, x: MARGIN + lane * LANE, y: MARGIN + ROW / 2 + row * ROW - 4 });
  }
  return places;
}

function drawEdge(from, to, isOnPath) {
  // The lane of a branch is its own, so its line goes down there.
  const bend = `C ${from.x} ${from.y + 0.7 * ROW}, ${to.x} ${from.y + 0.3 * ROW}, ${to.x} ${from.y + ROW} V ${to.y}`;
  return make("path", { d: `M ${from.x} ${from.y} ${from.x === to.x ? `V ${to.y}` : bend}`, class: `edge${isOnPath ? " on-path" : ""}` });
}

function snippet(piece) {
  if (!piece.parent) {
    return "beginning";
  }
  if (piece.isEnded && piece.text === "") {
    return "end";
  }
  const text = piece.text.replace(/\s+/g, " ").trim() || "↵";
  return text.length > SNIPPET ? `${text.slice(0, SNIPPET - 1)}…` : text;
}

function describe(piece) {
  if (!piece.parent) {
    return "the beginning, without text";
  }
  const kept = piece.isByModel ? "kept from what the model wrote" : "typed";
  const author = piece.isWritten ? `written with seed ${piece.request.seed}` : kept;
  const end = piece.isEnded ? ", and the end of the record" : "";
  return `${piece.text.length} characters, ${author}${end}: ${piece.text.slice(0, 60)}`;
}

function make(name, attributes) {
  const element = document.createElementNS(NAMESPACE, name);
  for (const [attribute, setting] of Object.entries(attributes)) {
    element.setAttribute(attribute, setting);
  }
  return element;
}

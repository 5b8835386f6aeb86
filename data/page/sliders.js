/** Sliders for the parameters of the chain, as the file of the model describes them. */

/** Parameters without a limit, or with one that nobody goes to, have a slider to here; the field beside it takes more. */
const WIDE = 100;
/** Steps of a slider whose parameter is no whole number. */
const STEPS = 200;
/** Half the width of a slider's thumb in pixels, which its marks stand in from its ends. */
const THUMB = 8;

/** The parameters that most people set, in plain words; all others are under "More". */
const COMMON = new Map([
  ["temperature.temperature", "Boldness"],
  ["top_p.top_p", "Variety"],
]);

export class Sliders {
  #more = make("details", { className: "link more" });
  #rows = [];

  /**
   * @param {HTMLElement} element
   * @param {() => void} onChange
   */
  constructor(element, onChange) {
    Object.assign(this, { element, onChange });
  }

  /** Make the sliders of a model. */
  build({ chain, symbols }) {
    const links = groupByLink(chain);
    this.#rows = [];
    const groups = [...links].map(([name, parameters]) => {
      const rows = parameters.map((parameter) => new Row(parameter, symbols.length, () => this.#update()));
      this.#rows.push(...rows);
      return makeGroup(name, rows.filter((row) => !COMMON.has(row.name)));
    });
    const isCommon = (row) => COMMON.has(row.name);
    const order = [...COMMON.keys()];
    const common = this.#rows.filter(isCommon).sort((one, other) => order.indexOf(one.name) - order.indexOf(other.name));
    const summary = make("summary", { textContent: "More" });
    summary.append(make("span", { className: "state" }));
    this.#more.replaceChildren(summary, ...groups.filter((group) => group.querySelector(".parameter")));
    this.#more.hidden = this.#rows.length === common.length;
    this.element.replaceChildren(...common.map((row) => row.element), this.#more);
    this.#refresh();
  }

  /** The defaults of all parameters, as an engine takes them. */
  get defaults() {
    return Object.fromEntries(this.#rows.map((row) => [row.name, row.parameter.default]));
  }

  /** The parameters that differ from the defaults of the file, as an engine takes them. */
  get parameters() {
    const changed = this.#rows.filter((row) => row.number !== row.parameter.default);
    return Object.fromEntries(changed.map((row) => [row.name, row.number]));
  }

  set parameters(parameters) {
    for (const row of this.#rows) {
      row.number = parameters[row.name] ?? row.parameter.default;
    }
    this.#refresh();
  }

  reset() {
    this.parameters = {};
    this.onChange();
  }

  #update() {
    this.#refresh();
    this.onChange();
  }

  #refresh() {
    const numbers = Object.fromEntries(this.#rows.map((row) => [row.name, row]));
    for (const row of this.#rows) {
      const { link, param, switch: switchName } = row.parameter;
      const switching = switchName && switchName !== param ? numbers[`${link}.${switchName}`] : null;
      row.showEffect(switching && switching.number === switching.parameter.neutral ? switchName : null);
    }
    const isChanged = (row) => row.number !== row.parameter.default;
    const changed = this.#rows.filter((row) => this.#more.contains(row.element) && isChanged(row)).length;
    this.#more.querySelector(".state").textContent = changed > 0 ? `${changed} set` : "";
    for (const group of this.#more.querySelectorAll(".link")) {
      const rows = this.#rows.filter((row) => group.contains(row.element));
      group.classList.toggle("changed", rows.some(isChanged));
      const isOff = rows.every((row) => row.number === row.parameter.neutral);
      group.querySelector(".state").textContent = isOff ? "off" : rows[0].shownNumber;
    }
  }
}

class Row {
  #number;

  constructor(parameter, symbolCount, onChange) {
    this.parameter = parameter;
    this.name = `${parameter.link}.${parameter.param}`;
    this.onChange = onChange;
    const { low, high, step } = sliderRange(parameter, symbolCount);
    Object.assign(this, { low, high });
    const id = `parameter-${parameter.link}-${parameter.param}`;
    this.field = makeInput({ type: "number", id, step: parameter.dtype === "int64" ? 1 : "any" });
    this.field.min = parameter.low ?? "";
    this.field.max = parameter.high ?? "";
    this.range = makeInput({ type: "range", min: low, max: high, step });
    this.range.setAttribute("aria-labelledby", `${id}-label`);
    this.range.setAttribute("aria-describedby", `${id}-help`);
    this.element = this.#makeElement(id);
    this.number = parameter.default;
    this.range.addEventListener("input", () => this.#change(this.range.valueAsNumber));
    this.field.addEventListener("change", () => this.#change(this.field.valueAsNumber));
  }

  get number() {
    return this.#number;
  }

  set number(number) {
    this.#number = number;
    this.range.value = number;
    this.field.value = this.shownNumber;
    this.range.setAttribute("aria-valuetext", this.shownNumber);
    this.element.classList.toggle("changed", number !== this.parameter.default);
  }

  get shownNumber() {
    return String(Number(this.#number.toPrecision(6)));
  }

  /** Show that the parameter has no effect until another one has, or none. */
  showEffect(switchName) {
    this.element.classList.toggle("idle", switchName !== null);
    this.help.textContent = helpOf(this.parameter) + (switchName ? ` Without effect until ${switchName} is set.` : "");
  }

  #change(number) {
    const { low, high, dtype } = this.parameter;
    if (Number.isFinite(number)) {
      const bounded = Math.min(Math.max(number, low ?? -Infinity), high ?? Infinity);
      this.number = dtype === "int64" ? Math.round(bounded) : bounded;
    } else {
      this.number = this.#number;
    }
    this.onChange();
  }

  #makeElement(id) {
    const { param, default: initial, neutral } = this.parameter;
    const words = COMMON.get(this.name) ?? param.replaceAll("_", " ");
    const label = make("label", { id: `${id}-label`, htmlFor: id, textContent: words, title: param });
    const back = make("button", { type: "button", className: "back", title: `Back to ${initial}`, textContent: "↺" });
    back.setAttribute("aria-label", `${param}: back to ${initial}`);
    back.addEventListener("click", () => this.#change(initial));
    const line = make("div", { className: "line" });
    line.append(label, back, this.field);
    const track = make("div", { className: "track" });
    track.append(this.range, this.#makeMark(neutral, "mark-neutral"), this.#makeMark(initial, "mark-default"));
    this.help = make("p", { id: `${id}-help`, className: "help" });
    const element = make("div", { className: "parameter" });
    element.append(line, track, this.help);
    return element;
  }

  #makeMark(number, className) {
    const mark = make("span", { className, hidden: number < this.low || number > this.high });
    const share = (number - this.low) / (this.high - this.low);
    mark.style.left = `calc(${THUMB}px + ${share} * (100% - ${2 * THUMB}px))`;
    return mark;
  }
}

/** Return the ends and the step of a slider. */
function sliderRange({ low, high, default: initial, neutral, dtype }, symbolCount) {
  const reach = 2 * Math.max(1, Math.abs(initial), Math.abs(neutral));
  const isWhole = dtype === "int64";
  const end = high === null || high > WIDE ? (isWhole ? Math.max(reach, Math.min(symbolCount, WIDE)) : reach) : high;
  const begin = low === null || low < -WIDE ? -end : low;
  return { low: begin, high: end, step: isWhole ? 1 : (end - begin) / STEPS };
}

function helpOf({ help }) {
  const text = (help ?? "").trim();
  return text && text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

function makeGroup(name, rows) {
  const group = make("details", { className: "link" });
  const summary = document.createElement("summary");
  summary.append(name.replaceAll("_", " "), make("span", { className: "state" }));
  group.append(summary, ...rows.map((row) => row.element));
  return group;
}

function groupByLink(chain) {
  const links = new Map();
  for (const parameter of chain) {
    links.set(parameter.link, [...(links.get(parameter.link) ?? []), parameter]);
  }
  return links;
}

function makeInput(attributes) {
  return make("input", attributes);
}

function make(name, properties) {
  return Object.assign(document.createElement(name), properties);
}

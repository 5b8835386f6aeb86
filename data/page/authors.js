/** Who wrote which characters of a text: a list of runs `{text, isByModel}`, which joined are the text. */

/** Return runs without empty ones, and with neighbours of one author joined: a text has only one such list. */
export function joinRuns(runs) {
  const joined = [];
  for (const { text, isByModel } of runs) {
    const last = joined.at(-1);
    if (last?.isByModel === isByModel) {
      last.text += text;
    } else if (text !== "") {
      joined.push({ text, isByModel });
    }
  }
  return joined;
}

/** Return the runs of the characters between two places of a text. */
export function sliceRuns(runs, begin, end = Infinity) {
  let start = 0;
  const slices = runs.map(({ text, isByModel }) => {
    const slice = { text: text.slice(Math.max(0, begin - start), Math.max(0, end - start)), isByModel };
    start += text.length;
    return slice;
  });
  return joinRuns(slices);
}

/** Return the runs of a text after a change of `findChange`: who wrote the characters around it stays. */
export function changeRuns(runs, { begin, end, text }) {
  return joinRuns([...sliceRuns(runs, 0, begin), { text, isByModel: false }, ...sliceRuns(runs, end)]);
}

/** Return how many characters two lists of joined runs have in common at their beginnings, and by the same authors. */
export function commonLength(first, second) {
  let length = 0;
  for (const [index, { text, isByModel }] of first.entries()) {
    const other = second[index];
    if (other?.isByModel !== isByModel) {
      break;
    }
    const shared = commonBeginning(text, other.text);
    length += shared;
    if (shared < Math.max(text.length, other.text.length)) {
      break;
    }
  }
  return length;
}

/**
 * Return the change that makes one text another: the characters from `begin` to `end` are replaced by `text`.
 *
 * @param {string} before
 * @param {string} after
 * @param {number} caret where it stands afterwards: "aa" does not tell which "a" is new, but the caret is behind it
 * @param {{begin: number, end: number} | null} selection what was selected before; it is replaced by what was typed
 *     over it, also where both have letters in common
 */
export function findChange(before, after, caret, selection = null) {
  const growth = after.length - before.length;
  const changeOf = (begin, end) => ({ begin, end, text: after.slice(begin, end + growth) });
  if (selection !== null && isReplaced(selection, before, after)) {
    return changeOf(selection.begin, selection.end);
  }
  const [prefix, suffix] = [commonBeginning(before, after), commonEnding(before, after)];
  const shared = Math.min(prefix + suffix, before.length, after.length);
  const begin = Math.min(Math.max(shared - (after.length - caret), shared - suffix), prefix);
  return changeOf(begin, before.length - (shared - begin));
}

function isReplaced({ begin, end }, before, after) {
  const newEnd = end + after.length - before.length;
  return newEnd >= begin && before.slice(0, begin) === after.slice(0, begin) && before.slice(end) === after.slice(newEnd);
}

/** Return how many units two texts have in common at their beginnings; surrogate pairs are never cut. */
function commonBeginning(first, second) {
  let length = 0;
  while (length < first.length && length < second.length && first[length] === second[length]) {
    length += 1;
  }
  return length > 0 && /[\uD800-\uDBFF]/.test(first[length - 1]) ? length - 1 : length;
}

function commonEnding(first, second) {
  let length = 0;
  while (length < first.length && length < second.length && first.at(-1 - length) === second.at(-1 - length)) {
    length += 1;
  }
  return length > 0 && /[\uDC00-\uDFFF]/.test(first.at(-length)) ? length - 1 : length;
}

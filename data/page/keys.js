/** The keys of the page, and what they are for. */

export const isMac = /Mac|iPhone|iPad/.test(navigator.platform);
const COMMAND = isMac ? "⌘" : "Ctrl+";
const WALK = isMac ? "⌃⌥" : "Alt+";

/** The action of each key, with the words for the list of keys. */
export const KEYS = [
  { action: "write", keys: "Tab", words: "write on, here at the end of the text" },
  { action: "stop", keys: "Esc", words: "stop writing, or close a window; after it, Tab leaves the text as usual" },
  { action: "another", keys: isMac ? "⌥↩" : "Alt+Enter", words: "another text in place of the last one" },
  { action: "undo", keys: `${COMMAND}Z`, words: "undo" },
  { action: "redo", keys: isMac ? "⇧⌘Z" : "Ctrl+Shift+Z", words: "redo" },
  { action: "alternatives", keys: isMac ? "⌃Space" : "Ctrl+Space", words: "what else was probable at the caret" },
  { action: "up", keys: `${WALK}↑`, words: "back to the piece before" },
  { action: "down", keys: `${WALK}↓`, words: "on to the next piece" },
  { action: "left", keys: `${WALK}← ${WALK}→`, words: "to the branch beside" },
  { action: "help", keys: "F1", words: "this list" },
];

/** Return the action of a key that was pressed in the text, or null. */
export function actionOf(event) {
  const { key, ctrlKey, altKey, shiftKey, isComposing } = event;
  if (isComposing) {
    return null; // the keys belong to what composes characters of several of them
  }
  const isCommand = isMac ? event.metaKey : ctrlKey;
  const isWalking = isMac ? ctrlKey && altKey : altKey && !ctrlKey;
  if (isWalking && key.startsWith("Arrow") && !shiftKey) {
    return key.slice("Arrow".length).toLowerCase();
  }
  if (isCommand && !altKey && (key === "z" || key === "Z")) {
    return shiftKey ? "redo" : "undo";
  }
  if (isCommand && !altKey && (key === "y" || key === "Y")) {
    return "redo";
  }
  if (altKey && key === "Enter") {
    return "another";
  }
  if (ctrlKey && event.code === "Space") {
    return "alternatives";
  }
  const isPlain = !ctrlKey && !altKey && !event.metaKey && !shiftKey;
  return isPlain ? ({ Tab: "write", Escape: "stop", F1: "help" }[key] ?? null) : null;
}

/** Fill the list of keys. */
export function listKeys(list) {
  for (const { keys, words } of KEYS) {
    const term = document.createElement("dt");
    for (const key of keys.split(" ")) {
      const sign = document.createElement("kbd");
      sign.textContent = key;
      term.append(sign, " ");
    }
    const meaning = document.createElement("dd");
    meaning.textContent = words;
    list.append(term, meaning);
  }
}

/** The error of the modules of this folder. */

/** An error that is meant for the user. `code` says what kind it is; docs/browser.md lists the codes. */
export class EngineError extends Error {
  /**
   * @param {string} code
   * @param {string} message one line
   */
  constructor(code, message) {
    super(message);
    this.name = "EngineError";
    this.code = code;
  }
}

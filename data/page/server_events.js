/** Reads the events of an answer of `gen serve`: the new text, and the tokens that belong to it. */

/**
 * Yield `{text, tokens, promptTokens, finish, session, seed}` for each event of one text, or `{error}`.
 *
 * The server counts characters as Python does, by code points, so texts are arrays of those here.
 *
 * @param {ReadableStream<Uint8Array>} stream the body of the answer
 * @param {string} echoed the prompt, where the answer begins with it
 */
export async function* readEvents(stream, echoed) {
  const reading = new TokenReading([...echoed].length);
  for await (const content of readData(stream)) {
    if (content === "[DONE]") {
      return;
    }
    const event = JSON.parse(content);
    if (event.error) {
      yield { error: event.error };
      return;
    }
    const [choice] = event.choices;
    if (choice) {
      const { finish = null, session = null } = choice;
      yield { ...reading.take([...choice.text], choice.logprobs), finish, session, seed: event.seed };
    }
  }
}

/** Yield what stands behind `data: ` in each event. */
async function* readData(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { done, value: part } = await reader.read();
    if (done) {
      return;
    }
    const events = (buffer + part).split("\n\n");
    buffer = events.pop();
    for (const event of events) {
      if (event.startsWith("data: ")) {
        yield event.slice("data: ".length);
      }
    }
  }
}

/** Gives each token the characters that belong to it. */
class TokenReading {
  /** Characters of the prompt, and those of it and of the text that were taken. */
  #promptLength;
  #taken = 0;

  constructor(promptLength) {
    this.#promptLength = promptLength;
  }

  /** Take the characters and the log-probabilities of an event. */
  take(characters, scores) {
    const begin = this.#taken;
    this.#taken += characters.length;
    const skipped = Math.max(0, Math.min(this.#promptLength - begin, characters.length));
    const all = tokensOf(characters, begin, scores);
    return {
      text: characters.slice(skipped).join(""),
      tokens: all.filter(({ offset }) => offset >= this.#promptLength).map(withoutOffset),
      promptTokens: all.filter(({ offset }) => offset < this.#promptLength).map(withoutOffset),
    };
  }
}

/** Return the tokens of an event; each ends where the next one begins. */
function tokensOf(characters, begin, scores) {
  if (!scores) {
    return [];
  }
  const offsets = scores.text_offset;
  const end = begin + characters.length;
  const rest = characters.slice(0, (offsets[0] ?? end) - begin).join("");
  const tokens = offsets.map((offset, index) => ({
    text: characters.slice(offset - begin, (offsets[index + 1] ?? end) - begin).join(""),
    logprob: scores.token_logprobs[index],
    // Objects of JavaScript have names such as "3" first, whatever their order was.
    top: Object.entries(scores.top_logprobs[index] ?? {}).sort(([, first], [, second]) => second - first),
    offset,
  }));
  // The end of a symbol of several characters whose beginning came with the event before.
  return rest ? [{ text: rest, logprob: null, top: [], offset: begin }, ...tokens] : tokens;
}

function withoutOffset({ text, logprob, top }) {
  return { text, logprob, top };
}

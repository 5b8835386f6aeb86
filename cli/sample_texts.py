"""How ``gen sample`` reads primes, and prints texts, or writes them into a file."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from gentext.console import Bar, raw_stdout, warn
from gentext.errors import PrimeError, UsageError
from gentext.files.atomic import open_output
from gentext.files.escapes import decode_escapes
from gentext.files.reading import read_file, read_stream
from gentext.generation.texts import TextBatch, all_texts
from gentext.generation.writing import Writing, WrittenText
from gentext.requests.parameters import ChosenChain

#: Bytes of a prime, at most: several novels.
MAX_PRIME_BYTES = 2**22


class Separation(NamedTuple):
    """How texts are kept apart on stdout."""

    text_end: str
    """Follows each text."""
    between: str
    """Precedes each text but the first."""

    def occurs_in(self, text: str) -> bool:
        """Return whether the text has a separator within itself, so that it would be taken for two."""
        return bool(self.between) and self.text_end + self.between in self.text_end + text + self.text_end


#: Without --separator, each text ends its line, and a line of its own stands between two texts.
SEPARATOR_LINES = Separation("\n", "%%%\n")


def parse_separator(separator: str | None, as_json: bool) -> Separation:
    if separator is None:
        return SEPARATOR_LINES
    if as_json:
        raise UsageError("--separator and --json: expected one of them; --json prints each text as one line")
    between = decode_escapes(separator)
    try:
        between.encode()
    except UnicodeEncodeError:  # an argument of a command line may have half a surrogate pair
        raise UsageError(f"--separator {separator!r}: not text in UTF-8") from None
    return Separation("", between)


def read_prime(prime: str | None, prime_file: str | None) -> str:
    if prime is not None and prime_file is not None:
        raise UsageError("--prime and --prime-file: expected one of them")
    if prime_file is None:
        return prime or ""
    if prime_file == "-" and sys.stdin is None:
        raise PrimeError("--prime-file -: standard input is closed; pipe a text into it, or name a file")
    try:
        if prime_file == "-":
            prime_bytes = read_stream(sys.stdin.buffer, MAX_PRIME_BYTES)
        else:
            prime_bytes = read_file(Path(prime_file), MAX_PRIME_BYTES)
        return prime_bytes.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise PrimeError(f"--prime-file {prime_file}: not UTF-8 at byte {error.start}; convert it to UTF-8") from None
    except OSError as error:
        raise PrimeError(
            f"--prime-file {prime_file}: cannot be read ({error.strerror}); expected a text file"
        ) from None


@contextlib.contextmanager
def redirect_output(path: Path | None, raw: bool) -> Iterator[None]:
    """Have all that is printed go into a file, see `gentext.files.atomic.open_output`; None for standard output.

    ``raw``: a terminal gets control characters as they are.
    """
    if path is None:
        with contextlib.redirect_stdout(raw_stdout() if raw else sys.stdout):
            yield
        return
    with open_output(path) as file:
        text_file = io.TextIOWrapper(file, "utf-8", "replace", newline="")
        with contextlib.redirect_stdout(text_file):
            yield
        text_file.detach()  # which writes what waits, and leaves the file open


def watch_texts(writing: Writing, bar: Bar) -> Iterator[WrittenText]:
    """Write the texts, and show how far they are; if they go to a terminal, only until the first one does."""
    length, count = writing.options["length"], writing.options["count"]
    for number, written in enumerate(all_texts(writing, bar), 1):
        if sys.stdout.isatty():
            bar.close()
        if length is not None and bar.total is not None:
            bar.total -= length - len(written.text)  # it may have ended early
        bar.advance(0, f"{number:,} of {count:,} texts")
        yield written


def print_json(texts: Iterable[WrittenText]) -> list[int]:
    """Print each text as soon as it comes; return the streams of those that the chain left no symbol for."""
    masked_streams = []
    for written in texts:
        print(format_json(written), flush=True)
        masked_streams += _masked_streams(written)
    return masked_streams


def print_texts(texts: Iterable[WrittenText], count: int, separation: Separation) -> list[int]:
    """Print texts as `print_json` does, but as they are, and warn of the first that has a separator within itself."""
    masked_streams = []
    is_ambiguous = False
    for number, written in enumerate(texts):
        text = written.prime + written.text
        sys.stdout.write((separation.between if number else "") + text + separation.text_end)
        sys.stdout.flush()
        masked_streams += _masked_streams(written)
        if count > 1 and not is_ambiguous and separation.occurs_in(text):
            is_ambiguous = True
            warn(f"text {written.stream} has a separator within itself; use another --separator, or --json")
    return masked_streams


def print_as_written(prime: str, batch: TextBatch, separation: Separation, bar: Bar) -> list[int]:
    """Print the characters of one text as they come, until it ends or nobody reads stdout any longer."""
    if sys.stdout.isatty():
        bar.close()
    write, flush = sys.stdout.write, sys.stdout.flush
    write(prime)
    flush()
    try:
        for piece in batch:
            write(piece.text)
            flush()
            bar.advance(len(piece.text))
    except KeyboardInterrupt:
        if sys.stdout.isatty():  # what follows begins on a line of its own
            write("\n")
        raise
    finally:
        batch.close()
    write(separation.text_end)
    return _masked_streams(batch.result())


def _masked_streams(written: WrittenText) -> list[int]:
    return [written.stream] if written.finish == "masked" else []


def format_json(written: WrittenText) -> str:
    fields = {
        "stream": written.stream,
        "seed": written.seed,
        "prime": written.prime,
        "text": written.text,
        "finish": written.finish,
        "tokens": written.tokens,
        "logprobs": [round(logprob, 6) for logprob in written.logprobs],
    }
    return json.dumps(fields, ensure_ascii=False)


def describe_chain(chosen_chain: ChosenChain) -> str:
    """Return the chain in words: each link with the numbers that it will use."""
    links = []
    for link in chosen_chain.chain:
        numbers = chosen_chain.param_numbers(link.name)
        params = ", ".join(
            f"{param}={numbers[param]:g}" for param, spec in link.strategy.params.items() if spec.is_option
        )
        links.append(f"{link.name}({params})")
    return " -> ".join([*links, "draw"])

"""Writes the texts of a checked request: in slots where its file has a compiled generator, else in batches."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence

from gentext.console import Bar
from gentext.exported.batch_size import max_texts
from gentext.generation.generate import Piece, generate
from gentext.generation.writing import Writing, WrittenText, written_text
from gentext.sampling.decoder import GeneratedText


def all_texts(writing: Writing, bar: Bar | None = None) -> Iterator[WrittenText]:
    """Write all texts of a request; yield them in their order, each as soon as it can be.

    :param bar: counts the characters as they are written.
    """
    if writing.text_count > 1 and writing.options["length"] is not None:
        # A single text does without these modules, which take five milliseconds to import.
        from gentext.generation.bulk import open_slots, write_texts
        from gentext.generation.rows import row_requests

        slots = open_slots(writing, writing.batch_rows)
        if slots is not None:
            texts = write_texts(slots, row_requests(writing), max_texts(writing.row_characters), bar)
            for number, generated in enumerate(texts):
                prime = writing.primes[number // writing.options["count"]]
                yield written_text(prime, writing.seed, generated)
            return
    for batch in text_batches(writing):
        yield from batch.complete_texts(bar)


def text_batches(writing: Writing) -> Iterator[TextBatch]:
    """Yield the batches in which the texts of a request are written, each ready to be iterated over."""
    for first_text in range(0, writing.text_count, writing.batch_rows):
        yield _begin_batch(writing, range(first_text, min(first_text + writing.batch_rows, writing.text_count)))


class TextBatch(Iterator[Piece]):
    """Texts that are written side by side: an iterator over their pieces."""

    def __init__(
        self,
        primes: Sequence[str],
        seed: int,
        texts: list[GeneratedText],
        pieces: Generator[Piece, None, None],
    ) -> None:
        self.seed = seed
        self._primes = primes
        self._texts = texts
        self._pieces = pieces

    def __next__(self) -> Piece:
        return next(self._pieces)

    def close(self) -> None:
        """End all texts early, and release what the sampler holds for them."""
        self._pieces.close()

    def result(self, row: int = 0) -> WrittenText:
        """Return the text of a row as it is now."""
        return written_text(self._primes[row], self.seed, self._texts[row])

    def complete_texts(self, bar: Bar | None = None) -> Iterator[WrittenText]:
        """Write all texts; yield them in their order, each as soon as it and all before it are complete.

        :param bar: counts the characters as they are written.
        """
        row_count, next_row = len(self._texts), 0
        with contextlib.closing(self):
            for piece in self:
                if bar is not None:
                    bar.advance(len(piece.text))
                if not piece.done:
                    continue
                while next_row < row_count and self._texts[next_row].finish != "running":
                    yield self.result(next_row)
                    next_row += 1
        for row in range(next_row, row_count):  # a sampler may stop before it has ended its rows
            yield self.result(row)


def _begin_batch(writing: Writing, text_numbers: range) -> TextBatch:
    options = writing.options
    prime_numbers = [text_number // options["count"] for text_number in text_numbers]
    texts, pieces = generate(
        writing.sampler,
        writing.chosen_chain.chain,
        primes=[writing.encoded_primes[prime_number] for prime_number in prime_numbers],
        seed=writing.seed,
        streams=[options["stream"] + text_number for text_number in text_numbers],
        length=options["length"],
        param_values=writing.chosen_chain.param_values,
        stops=options["stop"],
        tables=writing.tables,
        matches=writing.matches and writing.matches.of_texts(text_numbers),
        top_count=options["top_logprobs"],
        echo=options["echo"],
    )
    return TextBatch([writing.primes[prime_number] for prime_number in prime_numbers], writing.seed, texts, pieces)

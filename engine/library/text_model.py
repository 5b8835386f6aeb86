"""A trained model that writes: texts, one alone or many side by side, and records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack, cast

from gentext import console
from gentext.arguments import defaults_of, show_arguments
from gentext.errors import UsageError
from gentext.generation.generate import Piece
from gentext.generation.texts import TextBatch, all_texts, text_batches
from gentext.generation.writing import WrittenText
from gentext.library.measured_model import MeasuredModel
from gentext.requests.declaration import (
    ManyTextsArguments,
    RecordArguments,
    ScoredTextArguments,
    TextArguments,
    WritingOptions,
)
from gentext.requests.keywords import (
    ManyTextsKeywords,
    RecordKeywords,
    StreamKeywords,
    WriteKeywords,
    options_of_arguments,
)

if TYPE_CHECKING:
    from gentext.records.record_writing import RecordStream


class TextModel(MeasuredModel):
    """A trained model that writes text. `gentext.load`, `gentext.train` and `gentext.distill` return one.

    Several threads may use one model at a time, which does not change their texts.
    """

    @show_arguments
    def write(
        self,
        prime: str = "",
        **arguments: Unpack[WriteKeywords],
    ) -> str:
        """Write one text that goes on from the prime, and return its new characters.

        ``length`` is how many characters at most. The same ``seed`` and ``stream`` give the same text; with None a new
        seed is drawn, which the results of `stream` and `write_many` show. The text ends before the first ``stop``
        string.

        With ``match``, a regular expression, the new text always matches it, whole, with ``length`` characters at most;
        so does the prime with the new text where ``match_prime`` is true. ``json_schema`` is a JSON schema instead, as
        a dict or the path of a file: the text is valid JSON by it.

        ``unknown`` decides about characters of the prime that the model does not know: ``error``; ``skip`` leaves them
        out; ``unknown`` takes the model's unknown symbol. ``style`` is ``careful``, ``balanced`` or ``bold``: settings
        of the chain, over which its parameters count. ``chain`` names the links of another sampling
        chain than the model's own.

        Other keyword arguments are parameters of the chain's links, such as ``temperature=0.8``. Where several links
        have a parameter of the same name, or an argument of this method has it, write ``LINK_PARAM=...``, or
        ``params={"LINK.PARAM": ...}``.

        Raises UsageError for an impossible argument or parameter, PrimeError for an unknown character of the prime, or
        for a prime that no text which matches continues.
        """
        options = options_of_arguments(arguments, TextArguments)
        return self._write_all([prime], options)[0].text

    @show_arguments
    def write_many(
        self,
        primes: Sequence[str] = ("",),
        **arguments: Unpack[ManyTextsKeywords],
    ) -> list[WrittenText]:
        """Write ``count`` texts of each prime, many side by side, which is much faster than one after the other.

        Text i of prime j is number ``count * j + i`` of the result, and uses that stream of the seed: `write` gives
        the same text with that seed and stream. ``match`` and ``json_schema`` may also be lists that have one for each
        text, or None for a text without. Other arguments, and errors, are those of `write`.

        With ``top_logprobs`` from 1 to 10, each text has so many of the model's most probable symbols for each of its
        tokens. With ``echo`` it has the log-probabilities of its prime, too; ``length`` may then be 0.
        """
        if isinstance(primes, str):
            raise UsageError(f"primes = {primes!r}: expected a list of texts")
        options = options_of_arguments(arguments, ManyTextsArguments)
        return self._write_all(list(primes), options) if len(primes) else []

    @show_arguments
    def stream(
        self,
        prime: str = "",
        **arguments: Unpack[StreamKeywords],
    ) -> TextStream:
        """Return an iterator over the pieces of one text; with ``length=None`` the text has no end.

        Its attribute ``seed`` is the seed. Other arguments, and errors, are those of `write`; ``top_logprobs`` and
        ``echo`` are those of `write_many`.
        """
        options = options_of_arguments(arguments, ScoredTextArguments)
        with console.quiet() as messages:
            writing = self.prepare_writing([prime], options)
            [batch] = text_batches(writing)
        self.add_messages([*messages, *writing.notes])
        return TextStream(batch, self._next_piece)

    @show_arguments
    def records(
        self,
        count: int,
        **arguments: Unpack[RecordKeywords],
    ) -> RecordStream:
        """Return an iterator over ``count`` whole records, which are written while it is read, in any number.

        Record i has the number i, and depends on that, the seed and the arguments alone. One that has no end within
        ``length`` characters, by default twice as many as the longest training record has, is thrown away, and its
        number draws again, ``max_tries`` times at most; so is each that the other arguments refuse. ``unique``: of
        equal records the first stays. ``novel``: none is among the training records, of the run itself or of that whose
        folder or file of hashes it names. ``accept`` is a regular expression that all of a record matches. ``filters``
        are names of filters, or functions that return for a list of texts which of them may stay; ``filter_options``
        has the options of named ones, as ``{"closed": {"pairs": "<>"}}``.

        Records begin with ``prefix``, or there are ``count`` of each of ``prefixes``, or with the leading ``fields`` of
        rows of a table, by column. With ``shard=(i, n)`` only the numbers that are i modulo n are written, which are
        unique among themselves. Without ``ordered`` each comes as soon as it ends. ``slots`` are written side by side,
        which changes none. Other arguments are those of `write`.

        The iterator has the attributes ``plan``, ``written`` and ``thrown_away``, the counts of records by the reason,
        and ``to_arrow()`` and ``to_pandas()``, which read what is left of it.

        Raises UsageError for a model of one text and for an impossible argument, UnknownComponent and ConfigError for
        a filter or an option that is none, PrimeError for an unknown character of a prefix, RunError without the hashes
        for ``novel``; while records are read, GenError for a number whose tries are used up, PluginError for a filter
        that fails.
        """
        from gentext.components.filters import create_filters  # `gen sample` of one text does not need them
        from gentext.records.record_requests import Prefix, RecordRequest

        options = options_of_arguments(arguments, RecordArguments) | {"length": None}
        given = cast(RecordArguments, defaults_of(RecordArguments) | arguments)
        texts = [given["prefix"]] if given["prefixes"] is None else list(given["prefixes"])
        novel = given["novel"]
        request = RecordRequest(
            count=count,
            prefixes=[Prefix(text, title=f"prefixes[{number}]") for number, text in enumerate(texts)],
            fields=given["fields"] or {},
            options=options,
            length=given["length"],
            shard=given["shard"],
            ordered=given["ordered"],
            unique=given["unique"],
            novel=novel if isinstance(novel, bool) else Path(novel),
            accept=given["accept"],
            filters=create_filters(given["filters"], given["filter_options"] or {}),
            max_tries=given["max_tries"],
            slots=given["slots"],
            keeps_tokens=True,
        )
        with console.quiet() as messages:
            stream, writing = self.prepare_records(request)
        self.add_messages([*messages, *writing.notes])
        stream.add_messages = self.add_messages
        return stream

    def _write_all(self, primes: Sequence[str], options: WritingOptions) -> list[WrittenText]:
        if options["length"] is None:
            raise UsageError("length = None: only the method stream writes without end; give a number of characters")
        with console.quiet() as messages:
            writing = self.prepare_writing(primes, options)
            texts = list(all_texts(writing))
        self.add_messages([*messages, *writing.notes])
        return texts

    def _next_piece(self, batch: TextBatch) -> Piece:
        with console.quiet() as messages:
            piece = next(batch)
        self.add_messages(messages)
        return piece


class TextStream(Iterator[str]):
    """The pieces of one text, each written when it is read, by one thread. `TextModel.stream` returns an instance."""

    def __init__(self, batch: TextBatch, next_piece: Callable[[TextBatch], Piece]) -> None:
        self._batch = batch
        self._next_piece = next_piece

    def __repr__(self) -> str:
        return f"<gentext stream: {len(self.result.text):,} characters so far, seed {self.seed}>"

    def _repr_html_(self) -> str:
        return self.result._repr_html_()

    @property
    def seed(self) -> int:
        """The seed that gives the same text again."""
        return self._batch.seed

    @property
    def result(self) -> WrittenText:
        """The text that is written so far."""
        return self._batch.result()

    def __next__(self) -> str:
        while True:
            piece = self._next_piece(self._batch)
            if piece.text:
                return piece.text

    def close(self) -> None:
        """End the text early and release what the sampler holds for it."""
        self._batch.close()

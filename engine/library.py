"""gentext as a library: open a trained model, and write with it. `gen sample` and `gen eval` use the same functions.

Nothing is printed: the lines that the commands print on stderr are in `TextModel.messages`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gentext import console
from gentext.bundle import Bundle, readable_symbol
from gentext.config import build_config, config_class
from gentext.errors import CorpusError, UsageError, refuse_exit
from gentext.generate import Piece
from gentext.handover import check_opened
from gentext.interfaces import Filter, OpenSampler, Sampler
from gentext.manager import host
from gentext.opening import open_exported
from gentext.parameters import KeywordSpelling, Spelling
from gentext.run import MODEL_FILE
from gentext.settings import check_device, check_threads
from gentext.source import FILE_SAMPLER, find_source, openable_sources
from gentext.writing import TextBatch, Writing, WritingOptions, WrittenText, prepare_writing

if TYPE_CHECKING:
    from gentext.record_requests import RecordRequest
    from gentext.record_scores import TextScore
    from gentext.record_writing import RecordStream
    from gentext.score import Score, TextLoss
    from gentext.searching import BestTexts, Searching, SearchOptions

__all__ = ["TextModel", "TextStream", "WrittenText", "load"]

KEYWORD_SPELLING = KeywordSpelling()

#: A regular expression, or one for each text.
MatchOption = str | Sequence[str | None] | None
#: A JSON schema or the path of one, or one for each text.
SchemaOption = (
    Mapping[str, Any] | str | os.PathLike[str] | Sequence[Mapping[str, Any] | str | os.PathLike[str] | None] | None
)


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    device: str = "auto",
    threads: int = 0,
    sampler: str = FILE_SAMPLER,
    options: Mapping[str, Any] | None = None,
    verify: bool = True,
) -> TextModel:
    """Open a trained model: a run folder, an .onnx file, or a name of ``gen models``; None: the newest exported run.

    ``device`` is auto, cpu or cuda. ``threads`` is how many the computation may use at most, 0 for the number that
    suits the model; the text is the same. ``sampler`` names the component that runs the model, and ``options`` sets
    options of it. ``verify=False`` opens a file that was changed on purpose, whose bytes do not fit its check.

    Raises a subclass of `gentext.GenError`: RunError when there is no such run or when it was not exported,
    FileFormatError for a file that is damaged or not from gentext, DeviceError for a device that cannot be used.
    """
    if not isinstance(path, str | os.PathLike | None):
        raise UsageError(f"path = {path!r}: expected the path of a run or of an .onnx file")
    check_device(device, KEYWORD_SPELLING.assignment("device", device))
    check_threads(threads, KEYWORD_SPELLING.assignment("threads", threads))
    sampler_options = dict(options or {})
    if threads:
        sampler_options["threads"] = threads
    if not verify:
        sampler_options["verify"] = False
    with console.quiet() as messages:
        model = open_text_model(None if path is None else Path(path), device, sampler, sampler_options)
    model.add_messages(messages)
    return model


def open_text_model(
    path: Path | None,
    device: str = "auto",
    sampler: str = FILE_SAMPLER,
    options: Mapping[str, Any] | None = None,
) -> TextModel:
    """Open a model as `load` does, but print the messages on stderr, as the commands do."""
    sampler_class = host().registry.get("sampler", sampler)
    config = build_config(config_class(sampler_class), options or {}, "sampler")
    source = find_source(path, openable_sources(sampler_class, sampler), sampler)
    with refuse_exit(f"the sampler {sampler!r}"):
        sampler_component: Sampler = sampler_class(config)
        opened_sampler = check_opened(sampler, sampler_component.open(source, device))
    return TextModel(source, opened_sampler, device, verify=(options or {}).get("verify") is not False)


class TextModel:
    """A trained model that writes text. `gentext.load` and `gentext.train` return one.

    Several threads may use one model at a time, which does not change their texts.
    """

    def __init__(self, path: Path, sampler: OpenSampler, device: str = "auto", *, verify: bool = True) -> None:
        self.path = path
        """The run folder, or the file."""
        self._sampler = sampler
        self._open_sequences = functools.partial(open_exported, path / MODEL_FILE, device, 1, verify)
        self._sequence_sampler: OpenSampler | None = None
        self._messages: dict[str, None] = {}

    def __repr__(self) -> str:
        chain = ", ".join(self.chain)
        return f"<gentext model {self.path}: {self.vocab_size} symbols, chain {chain}, {self.device}>"

    @property
    def bundle(self) -> Bundle:
        """The metadata of the file."""
        return self._sampler.bundle

    @property
    def device(self) -> str:
        """The device that is really used, in words."""
        return self._sampler.device

    @property
    def vocab_size(self) -> int:
        """Number of different symbols that the model knows."""
        return self.bundle.vocab_size

    @property
    def symbols(self) -> list[str]:
        """The symbol of each token, in the order of the tokens."""
        return [readable_symbol(symbol) for symbol in self.bundle.token_bytes]

    @property
    def chain(self) -> dict[str, dict[str, float]]:
        """The links of the sampling chain in order, each with the defaults of its parameters."""
        return {
            link.name: {name: param.default for name, param in link.params.items() if param.is_option}
            for link in self.bundle.chain
        }

    @property
    def card(self) -> dict[str, Any]:
        """Where the model comes from: corpus, sizes, losses, config, versions."""
        return self.bundle.card

    @property
    def messages(self) -> list[str]:
        """The lines that the commands would have printed on stderr, each once."""
        return list(self._messages)

    def add_messages(self, lines: Iterable[str]) -> None:
        """Add lines to `messages`."""
        self._messages.update(dict.fromkeys(lines))

    def write(
        self,
        prime: str = "",
        *,
        length: int = 500,
        seed: int | None = None,
        stream: int = 0,
        stop: str | Sequence[str] = (),
        match: MatchOption = None,
        json_schema: SchemaOption = None,
        match_prime: bool = False,
        unknown: str = "error",
        style: str | None = None,
        chain: Sequence[str] | None = None,
        params: Mapping[str, object] | None = None,
        **parameters: object,
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
        options = _writing_options(
            1, length, seed, stream, stop, unknown, style, chain, params, parameters, match, json_schema, match_prime
        )
        return self._write_all([prime], options)[0].text

    def write_many(
        self,
        primes: Sequence[str] = ("",),
        *,
        count: int = 1,
        length: int = 500,
        seed: int | None = None,
        stream: int = 0,
        stop: str | Sequence[str] = (),
        match: MatchOption = None,
        json_schema: SchemaOption = None,
        match_prime: bool = False,
        unknown: str = "error",
        style: str | None = None,
        chain: Sequence[str] | None = None,
        params: Mapping[str, object] | None = None,
        top_logprobs: int = 0,
        echo: bool = False,
        **parameters: object,
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
        options = _writing_options(
            count,
            length,
            seed,
            stream,
            stop,
            unknown,
            style,
            chain,
            params,
            parameters,
            match,
            json_schema,
            match_prime,
            top_logprobs,
            echo,
        )
        return self._write_all(list(primes), options) if len(primes) else []

    def stream(
        self,
        prime: str = "",
        *,
        length: int | None = 500,
        seed: int | None = None,
        stream: int = 0,
        stop: str | Sequence[str] = (),
        match: MatchOption = None,
        json_schema: SchemaOption = None,
        match_prime: bool = False,
        unknown: str = "error",
        style: str | None = None,
        chain: Sequence[str] | None = None,
        params: Mapping[str, object] | None = None,
        top_logprobs: int = 0,
        echo: bool = False,
        **parameters: object,
    ) -> TextStream:
        """Return an iterator over the pieces of one text; with ``length=None`` the text has no end.

        Its attribute ``seed`` is the seed. Other arguments, and errors, are those of `write`; ``top_logprobs`` and
        ``echo`` are those of `write_many`.
        """
        options = _writing_options(
            1,
            length,
            seed,
            stream,
            stop,
            unknown,
            style,
            chain,
            params,
            parameters,
            match,
            json_schema,
            match_prime,
            top_logprobs,
            echo,
        )
        with console.quiet() as messages:
            writing = self.prepare_writing([prime], options)
            [batch] = writing.batches()
        self.add_messages([*messages, *writing.notes])
        return TextStream(batch, self._next_piece)

    def records(
        self,
        count: int,
        *,
        seed: int | None = None,
        prefix: str = "",
        prefixes: Sequence[str] | None = None,
        fields: Mapping[str, str] | None = None,
        length: int | None = None,
        unique: bool = False,
        novel: bool | str | os.PathLike[str] = False,
        accept: str | None = None,
        filters: Sequence[str | Filter] = (),
        filter_options: Mapping[str, Mapping[str, object]] | None = None,
        max_tries: int = 1000,
        shard: tuple[int, int] = (0, 1),
        ordered: bool = True,
        slots: int | None = None,
        match: str | None = None,
        json_schema: Mapping[str, Any] | str | os.PathLike[str] | None = None,
        match_prime: bool = False,
        unknown: str = "error",
        style: str | None = None,
        chain: Sequence[str] | None = None,
        params: Mapping[str, object] | None = None,
        **parameters: object,
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

        The iterator has the attributes ``plan``, ``written`` and ``thrown_away``, the counts of records by the reason.

        Raises UsageError for a model of one text and for an impossible argument, UnknownComponent and ConfigError for
        a filter or an option that is none, PrimeError for an unknown character of a prefix, RunError without the hashes
        for ``novel``; while records are read, GenError for a number whose tries are used up, PluginError for a filter
        that fails.
        """
        from gentext.filters import create_filters  # `gen sample` of one text does not need them
        from gentext.record_requests import Prefix, RecordRequest

        options = _writing_options(
            1, None, seed, 0, (), unknown, style, chain, params, parameters, match, json_schema, match_prime
        )
        texts = [prefix] if prefixes is None else list(prefixes)
        request = RecordRequest(
            count=count,
            prefixes=[Prefix(text, title=f"prefixes[{number}]") for number, text in enumerate(texts)],
            fields=fields or {},
            options=options,
            length=length,
            shard=shard,
            ordered=ordered,
            unique=unique,
            novel=novel if isinstance(novel, bool) else Path(novel),
            accept=accept,
            filters=create_filters(filters, filter_options or {}),
            max_tries=max_tries,
            slots=slots,
            keeps_tokens=True,
        )
        with console.quiet() as messages:
            stream, writing = self.prepare_records(request)
        self.add_messages([*messages, *writing.notes])
        stream.add_messages = self.add_messages
        return stream

    def best(
        self,
        prime: str = "",
        *,
        count: int = 10,
        length: int | None = None,
        stop: str | Sequence[str] = (),
        match: str | None = None,
        json_schema: Mapping[str, Any] | str | os.PathLike[str] | None = None,
        match_prime: bool = False,
        temperature: float = 1.0,
        unknown: str = "error",
        beam: int | None = None,
        memory: int = 1000,
        progress: bool = False,
    ) -> BestTexts:
        """Return the most probable distinct texts behind a prime, in order, with their log-probabilities.

        A text ends before the first ``stop`` string, or with ``length`` characters, 20 by default; its log-probability
        is that of its symbols, and of those of the stop string that ends it. The sampling chain is not used:
        probabilities are those of the model, whose logits are divided by ``temperature``. Bytes that are no UTF-8 are
        no text. A model of records gives whole records of at most ``length`` characters, by default as many as the
        longest training record has; the log-probability of their end counts.

        With ``match``, a regular expression, or ``json_schema``, the texts are those that match, whole, with ``length``
        characters at most, and the log-probability is that of the symbols alone; other text might follow. With
        ``match_prime`` the prime counts as the beginning of what matches.

        The result is exact, or has fewer texts where the search would take more than ``memory`` megabytes: then
        ``is_complete`` is false, and ``bound`` is the greatest log-probability that any other text can have. With
        ``beam`` only so many beginnings of each number of symbols are kept, which is quick, but not exact.
        With ``progress`` a bar is shown on stderr. ``unknown`` is that of `write`.

        Raises UsageError for an impossible argument, and for a model whose symbols can spell one text in several ways;
        PrimeError for an unknown character of the prime; PluginError when the sampler gives no logits.
        """
        from gentext.searching import SearchOptions  # `gen sample` does not need it

        options = SearchOptions(
            count, length, _stop_strings(stop), temperature, unknown, beam, memory, match, json_schema, match_prime
        )
        if progress:
            searching = self._search(prime, options)
        else:
            with console.quiet() as messages:
                searching = self._search(prime, options)
            self.add_messages(messages)
        self.add_messages(searching.notes)
        return searching.result()

    def score(self, text: str, name: str = "the text", *, progress: bool = False) -> Score:
        """Measure how well the model predicts a text: the log-probability of each symbol, and bits a character.

        ``name`` stands for the text in messages. With ``progress``, messages and a bar are printed
        on stderr. A model with an unknown symbol reads characters that it does not know as that symbol. Raises
        CorpusError when the text is empty, or when the model has no such symbol and meets such a character;
        PluginError when the sampler gives no logits.
        """
        from gentext.score import score_text  # `gen sample` does not need it

        if not isinstance(text, str):
            raise UsageError(f"text = {text!r}: expected a text")
        if progress:
            return score_text(self._sampler, text, name)
        with console.quiet() as messages:
            score = score_text(self._sampler, text, name)
        self.add_messages(messages)
        return score

    def score_many(self, texts: Iterable[str], *, workers: int = 0) -> Iterator[TextScore]:
        """Score texts, each read from a fresh state after the start symbol, as `gen score` does; in their order.

        In a model of records each text is a whole record, and its end counts too. ``texts`` may be any number: some
        16,384 are read together, those that begin alike once, and two or three times as many are in memory. The scores
        of a text are the same to the bit whatever texts stand beside it. ``workers`` is how many threads read, 0 for
        one on each core.

        Raises, after the scores of all texts before it, UsageError for what is no text, and CorpusError for a
        character that the model has no symbol for; PluginError when the sampler gives no logits.
        """
        from gentext.record_scores import EncodedText, TextScorer, score_texts

        check_threads(workers, KEYWORD_SPELLING.assignment("workers", workers))
        if isinstance(texts, str):
            raise UsageError(f"texts = {texts!r}: expected several texts")
        with console.quiet() as messages:
            scorer = TextScorer(self.whole_sequence_sampler())
        self.add_messages(messages)

        def encode_texts() -> Iterator[EncodedText[int]]:
            for number, text in enumerate(texts):
                if not isinstance(text, str):
                    raise UsageError(f"texts[{number}] = {text!r}: expected a text")
                try:
                    yield EncodedText(number, text, [scorer.encode(text)])
                except CorpusError as error:
                    raise CorpusError(f"texts[{number}]: {error}") from None

        windows = score_texts([scorer], encode_texts(), workers)
        return (score for window in windows for _, [score] in window)

    def whole_sequence_sampler(self) -> OpenSampler:
        """Return what gives logits for whole sequences, with one thread for each call: of a run, its model.onnx.

        A generator.onnx alone is read position by position, which is slower; a message says so.
        """
        if self.bundle.kind != "generator":
            return self._sampler
        if not (self.path / MODEL_FILE).is_file():
            console.say(f"{self.path}: a compiled generator alone, which is slower to score with than {MODEL_FILE}")
            return self._sampler
        if self._sequence_sampler is None:
            self._sequence_sampler = self._open_sequences()
        return self._sequence_sampler

    def prepare_writing(
        self, primes: Sequence[str], options: WritingOptions, spelling: Spelling = KEYWORD_SPELLING
    ) -> Writing:
        """Check a request and prepare its texts; messages are printed on stderr. See `prepare_writing`."""
        return prepare_writing(self._sampler, primes, options, spelling)

    def prepare_records(
        self, request: RecordRequest, spelling: Spelling = KEYWORD_SPELLING
    ) -> tuple[RecordStream, Writing]:
        """Check a request for records and prepare it; see `gentext.record_requests.prepare_records`."""
        from gentext.record_requests import prepare_records

        return prepare_records(self._sampler, self.path, request, spelling)

    def prepare_search(self, prime: str, options: SearchOptions, spelling: Spelling = KEYWORD_SPELLING) -> Searching:
        """Check a request for the most probable texts and prepare it; see `gentext.searching.prepare_search`."""
        from gentext.searching import prepare_search

        return prepare_search(self._sampler, prime, options, spelling)

    def measure_pieces(self, pieces: Iterable[str], name: str, size: int | None = None) -> TextLoss:
        """Measure the loss on a text of any length, which comes in pieces; see `gentext.score.measure_pieces`."""
        from gentext.score import measure_pieces

        return measure_pieces(self._sampler, pieces, name, size)

    def notebook_score(self, text: str) -> float | None:
        """Return the loss on a text by the notebook's formula in nats a character; None when the text is too short."""
        from gentext.score import notebook_score

        return notebook_score(self._sampler, text)

    def _write_all(self, primes: Sequence[str], options: WritingOptions) -> list[WrittenText]:
        if options.length is None:
            raise UsageError("length = None: only the method stream writes without end; give a number of characters")
        with console.quiet() as messages:
            writing = self.prepare_writing(primes, options)
            texts = list(writing.texts())
        self.add_messages([*messages, *writing.notes])
        return texts

    def _search(self, prime: str, options: SearchOptions) -> Searching:
        """Return a search that has come to its end."""
        searching = self.prepare_search(prime, options)
        with console.progress("searching", options.count) as bar:
            for _ in searching.texts(bar):
                pass
        return searching

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


def _writing_options(
    count: int,
    length: int | None,
    seed: int | None,
    stream: int,
    stop: str | Sequence[str],
    unknown: str,
    style: str | None,
    chain: Sequence[str] | None,
    params: Mapping[str, object] | None,
    parameters: Mapping[str, object],
    match: object,
    json_schema: object,
    match_prime: bool,
    top_logprobs: int = 0,
    echo: bool = False,
) -> WritingOptions:
    """Return the arguments of `TextModel.write` as options; ``params`` and ``parameters`` both set those of links."""
    if not isinstance(params, Mapping | None):
        raise UsageError(f"params = {params!r}: expected a dict such as {{'top_k.top_k': 5}}")
    if isinstance(chain, str):
        raise UsageError(f"chain = {chain!r}: expected a list of links")
    links = None if chain is None else list(chain)
    settings, stops = {**(params or {}), **parameters}, _stop_strings(stop)
    return WritingOptions(
        count,
        length,
        seed,
        stream,
        stops,
        unknown,
        links,
        settings,
        style,
        match,
        json_schema,
        bool(match_prime),
        top_logprobs,
        bool(echo),
    )


def _stop_strings(stop: str | Sequence[str]) -> tuple[str, ...]:
    if not isinstance(stop, Iterable):
        raise UsageError(f"stop = {stop!r}: expected a text, or a list of texts")
    return (stop,) if isinstance(stop, str) else tuple(stop)

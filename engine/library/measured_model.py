"""An opened model that tells how probable texts are, and which are the most probable ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Unpack

from gentext import console
from gentext.arguments import show_arguments
from gentext.errors import CorpusError, UsageError
from gentext.interfaces import OpenSampler
from gentext.library.open_model import OpenModel
from gentext.requests.declaration import SearchArguments
from gentext.requests.keywords import check_names, stop_strings
from gentext.run import MODEL_FILE
from gentext.settings import check_threads

if TYPE_CHECKING:
    from gentext.inspection.inspected_text import InspectedText
    from gentext.scoring.record_scores import TextScores
    from gentext.scoring.score import Score, TextLoss
    from gentext.scoring.unknown_characters import UnknownCharacters
    from gentext.search.searching import BestTexts, Searching


class MeasuredModel(OpenModel):
    """An opened model that tells how probable texts are: its own probabilities, without the sampling chain."""

    @show_arguments
    def best(
        self,
        prime: str = "",
        *,
        progress: bool = False,
        **arguments: Unpack[SearchArguments],
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
        With ``progress`` a bar is shown on stderr. ``unknown`` is that of `TextModel.write`.

        Raises UsageError for an impossible argument, and for a model whose symbols can spell one text in several ways;
        PrimeError for an unknown character of the prime; PluginError when the sampler gives no logits.
        """
        from gentext.search.searching import search_options  # `gen sample` does not need it

        check_names(arguments, SearchArguments, "MeasuredModel.best")
        options = search_options(**arguments)
        options |= {"stop": stop_strings(options["stop"])}
        if progress:
            searching = self._search(prime, options)
        else:
            with console.quiet() as messages:
                searching = self._search(prime, options)
            self.add_messages(messages)
        self.add_messages(searching.notes)
        return searching.result()

    def score(self, text: str, name: str = "the text", *, unknown: str = "error", progress: bool = False) -> Score:
        """Measure how well the model predicts a text: the log-probability of each symbol, and bits a character.

        ``name`` stands for the text in messages. With ``progress``, messages and a bar are printed
        on stderr.

        ``unknown`` decides about characters that the model does not know: ``skip`` leaves them out, and all figures are
        those of the text without them; ``error`` reads them as the model's unknown symbol, if it has one. A message
        says how many there were.

        Raises UsageError for an impossible argument; CorpusError when there is no text, or an unknown character and no
        symbol for it; PluginError when the sampler gives no logits.
        """
        from gentext.scoring.score import score_text  # `gen sample` does not need it
        from gentext.scoring.unknown_characters import UnknownCharacters

        if not isinstance(text, str):
            raise UsageError(f"text = {text!r}: expected a text")
        characters = UnknownCharacters([self.bundle], unknown)
        if progress:
            return score_text(self._sampler, text, name, characters)
        with console.quiet() as messages:
            score = score_text(self._sampler, text, name, characters)
        self.add_messages(messages)
        return score

    def inspect(
        self, text: str, *, top: int = 5, unit: Sequence[str] = (), unknown: str = "error", progress: bool = False
    ) -> InspectedText:
        """Read a text symbol by symbol, as `gen inspect` does: the surprise of each, and the hidden units.

        The result shows itself in a notebook; ``save("page.html")`` writes the page. ``top`` is how many of the most
        probable symbols it has in place of each, 1 to 20. ``unit`` has names of hidden units, such as ``"c.1.37"``,
        which the page then shows beside those that tell most. ``unknown`` is that of `score`.

        Raises UsageError for an impossible argument; CorpusError for an empty text, for one that is too long to keep
        (its symbols times the hidden units are at most about 2**26), and for an unknown character without a symbol;
        PluginError when the sampler gives no logits.
        """
        from gentext.inspection.inspected_text import check_inspection, inspect_tokens, tokens_to_inspect
        from gentext.requests.spelling import KEYWORD_SPELLING
        from gentext.scoring.unknown_characters import UnknownCharacters

        if not isinstance(text, str):
            raise UsageError(f"text = {text!r}: expected a text")
        check_inspection(self.bundle, top, unit, KEYWORD_SPELLING)
        characters = UnknownCharacters([self.bundle], unknown)
        with contextlib.ExitStack() as context:
            messages = [] if progress else context.enter_context(console.quiet())
            tokens = tokens_to_inspect(self.bundle, characters.leave_out(text), "the text", characters)
            inspected = inspect_tokens(self._sampler, tokens, top, unit, self.path, "the text")
        self.add_messages(messages)
        return inspected

    def score_many(self, texts: Iterable[str], *, unknown: str = "error", workers: int = 0) -> TextScores:
        """Score texts, each read from a fresh state after the start symbol, as `gen score` does; in their order.

        In a model of records each text is a whole record, and its end counts too. ``texts`` may be any number: some
        16,384 are read together, those that begin alike once, and two or three times as many are in memory. The scores
        of a text are the same to the bit whatever texts stand beside it. ``workers`` is how many threads read, 0 for
        one on each core. ``unknown`` is that of `score`; behind the last text a message says how many there were.

        The iterator has ``to_arrow()`` and ``to_pandas()``, which read what is left of it.

        Raises, after the scores of all texts before it, UsageError for what is no text, and CorpusError for an unknown
        character without a symbol; UsageError for an impossible argument; PluginError when the sampler gives no logits.
        """
        from gentext.scoring.record_scores import EncodedText, TextScorer, TextScores, score_texts
        from gentext.scoring.unknown_characters import UnknownCharacters

        check_threads(workers, "workers")
        if isinstance(texts, str):
            raise UsageError(f"texts = {texts!r}: expected several texts")
        characters = UnknownCharacters([self.bundle], unknown)
        with console.quiet() as messages:
            scorer = TextScorer(self.whole_sequence_sampler(), characters)
        self.add_messages(messages)

        def encode_texts() -> Iterator[EncodedText[int]]:
            for number, text in enumerate(texts):
                if not isinstance(text, str):
                    raise UsageError(f"texts[{number}] = {text!r}: expected a text")
                try:
                    yield EncodedText(number, text, [scorer.encode(text)])
                except CorpusError as error:
                    raise CorpusError(f"texts[{number}]: {error}") from None
            with console.quiet() as messages:
                characters.report("the texts")
            self.add_messages(messages)

        windows = score_texts([scorer], encode_texts(), workers)
        return TextScores(score for window in windows for _, [score] in window)

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

    def measure_pieces(
        self,
        pieces: Iterable[str],
        name: str,
        size: int | None = None,
        characters: UnknownCharacters | None = None,
    ) -> TextLoss:
        """Measure the loss on a text of any length, which comes in pieces, and show how far it is.

        Each piece is turned into ids by itself, as in training. ``size`` is about how many bytes the text has, None
        where nobody knows. ``characters`` and the errors are those of `gentext.scoring.score.score_text`.
        """
        from gentext.scoring.score import TextReader

        reader = TextReader(self._sampler, pieces, name, characters)
        for _ in reader.windows(size):
            pass
        loss = reader.loss()
        reader.unknown.report(name)
        return loss

    def notebook_score(self, text: str, unknown: str = "error") -> float | None:
        """Return the loss on a text by the notebook's formula in nats a character; None when the text is too short."""
        from gentext.scoring.score import notebook_score

        return notebook_score(self._sampler, text, unknown)

    def _search(self, prime: str, options: SearchArguments) -> Searching:
        """Return a search that has come to its end."""
        searching = self.prepare_search(prime, options)
        with console.progress("searching", options["count"]) as bar:
            for _ in searching.texts(bar):
                pass
        return searching

"""Records side by side over a sampler without slots, or with another chain than the file's: in batches."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from gentext.generation.generate import generate
from gentext.generation.writing import Writing
from gentext.records.record_rows import DrawnRecord, RecordTry, symbol_limit
from gentext.requests.spelling import ParamValues
from gentext.sampling.decoder import GeneratedText


class RecordBatches:
    """Writes up to N records in a batch, which ends when the last of them has ended. See `RecordRows`."""

    busy = 0
    """No record is under way between two calls."""

    def __init__(self, writing: Writing, param_values: Sequence[ParamValues], count: int) -> None:
        """``param_values`` are the parameters of the records of each prefix."""
        self.count = count
        self._writing, self._param_values = writing, param_values
        assert writing.options["length"] is not None
        self._length = writing.options["length"]
        self._most_symbols = symbol_limit(writing.sampler.bundle, self._length)

    def advance(self, sources: Sequence[RecordTry]) -> list[DrawnRecord]:
        """Write records, and return them."""
        drawn: list[DrawnRecord] = []
        for _, group in itertools.groupby(sources, lambda source: id(self._param_values[source.prefix])):
            drawn += self._write(list(group))
        return drawn

    def _write(self, sources: Sequence[RecordTry]) -> list[DrawnRecord]:
        """Write records with the same parameters."""
        writing, prefixes = self._writing, [source.prefix for source in sources]
        texts, pieces = generate(
            writing.sampler,
            writing.chosen_chain.chain,
            primes=[writing.encoded_primes[prefix] for prefix in prefixes],
            seed=writing.seed,
            streams=[source.stream for source in sources],
            length=self._length + 1,  # the end comes behind the last character
            param_values=self._param_values[prefixes[0]],
            tables=writing.tables,
            matches=writing.matches and writing.matches.of_texts(prefixes),
        )
        for _ in pieces:
            pass
        return [self._finish(source, text) for source, text in zip(sources, texts, strict=True)]

    def _finish(self, source: RecordTry, text: GeneratedText) -> DrawnRecord:
        is_cut = text.finish in ("running", "match") or len(text.tokens) > self._most_symbols
        logprob = 0.0
        for symbol_logprob in text.logprobs:
            logprob += symbol_logprob
        return DrawnRecord(
            source,
            text.text,
            "length" if is_cut else text.finish,
            logprob,
            tuple(text.tokens),
            tuple(text.logprobs),
        )

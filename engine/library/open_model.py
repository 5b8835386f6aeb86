"""An opened model: what its file says about it, what it has said, and the checks of requests to it."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gentext.errors import MissingExtra, RunError
from gentext.exported.metadata import Bundle, readable_symbol
from gentext.generation.writing import Writing, prepare_writing
from gentext.interfaces import Measurement, OpenSampler
from gentext.notebooks import facts_html
from gentext.requests.declaration import SearchArguments, WritingOptions
from gentext.requests.spelling import KEYWORD_SPELLING, Spelling
from gentext.run import METRICS_FILE, MODEL_FILE, Run
from gentext.runs.source import open_exported

if TYPE_CHECKING:
    from gentext.records.record_requests import RecordRequest
    from gentext.records.record_writing import RecordStream
    from gentext.search.searching import Searching

#: The module that draws curves, as a dotted name: the engine imports no built-in plugin by itself.
CURVES_MODULE = "gentext.plugins.observers.curves"
#: Methods that commands and the server use, and that users need not see.
INTERNAL_METHODS = {"add_messages", "measure_pieces", "whole_sequence_sampler"}
INTERNAL_METHODS |= {"prepare_records", "prepare_search", "prepare_writing"}


class OpenModel:
    """A trained model, opened by a sampler: what `MeasuredModel` and `TextModel` build on."""

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

    def _repr_html_(self) -> str:
        card = self.card
        corpus = card.get("corpus")
        facts = {
            "text": corpus.get("name") if isinstance(corpus, dict) else None,
            "symbols": self.vocab_size,
            "parameters": card.get("parameters"),
            "held-out loss": card.get("val_loss"),
            "training loss": card.get("train_loss"),
            "chain": ", ".join(self.chain),
            "device": self.device,
            "verdict": card.get("verdict"),
        }
        return facts_html(str(self.path), facts)

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name not in INTERNAL_METHODS and not name.startswith("_")]

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

    @property
    def history(self) -> tuple[Measurement, ...]:
        """The measurements of the run, in the order of steps: losses on the held-out and on the training text.

        Raises RunError for a file without its run.
        """
        return self._run().read_curve()

    def plot(self) -> Any:
        """Return the curves of the losses as a matplotlib Figure, which a notebook shows.

        Raises RunError for a file without its run, MissingExtra without matplotlib.
        """
        run = self._run()
        if importlib.util.find_spec("matplotlib") is None:
            raise MissingExtra("plot", "train")
        return importlib.import_module(CURVES_MODULE).build_chart(run.path.name, run.read_metrics())

    def _run(self) -> Run:
        if not (self.path / METRICS_FILE).is_file():
            raise RunError(f"{self.path} is no run folder with a {METRICS_FILE}, so its history is not known")
        return Run(self.path)

    def add_messages(self, lines: Iterable[str]) -> None:
        """Add lines to `messages`."""
        self._messages.update(dict.fromkeys(lines))

    def prepare_writing(
        self, primes: Sequence[str], options: WritingOptions, spelling: Spelling = KEYWORD_SPELLING
    ) -> Writing:
        """Check a request and prepare its texts; messages are printed on stderr. See `prepare_writing`."""
        return prepare_writing(self._sampler, primes, options, spelling)

    def prepare_records(
        self, request: RecordRequest, spelling: Spelling = KEYWORD_SPELLING
    ) -> tuple[RecordStream, Writing]:
        """Check a request for records and prepare it; see `gentext.records.record_requests.prepare_records`."""
        from gentext.records.record_requests import prepare_records

        return prepare_records(self._sampler, self.path, request, spelling)

    def prepare_search(self, prime: str, options: SearchArguments, spelling: Spelling = KEYWORD_SPELLING) -> Searching:
        """Check a request for the most probable texts and prepare it; see `gentext.search.searching.prepare_search`."""
        from gentext.search.searching import prepare_search

        return prepare_search(self._sampler, prime, options, spelling)

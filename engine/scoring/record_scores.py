"""The log-probabilities of many short texts, each read from a fresh state: records, or lines.

Texts are collected in windows. In a window, what texts begin with is read once: after each few positions, those that
agree so far are one row. Of 16,384 molecules in SMILES that leaves 53 of 100 symbols to read, of as many English words
50, of lines of Shakespeare 81. Rows of like length are read together, each call by one thread.

**Equal to the bit.** A text has the same log-probabilities whatever texts are scored beside it. onnxruntime's operator
LSTM computes fewer than five rows in another way than more, and splits rows between threads. So the number of rows in a
call depends on nothing but the position: rows without a text read the start token; and sessions have one thread. With
onnxruntime 1.31 on Zen 5 (AVX-512) no bit of any logit changed with 1 to 160 rows, 1 to 40 positions, texts cut into
calls, and 1, 2 and 6 threads, in networks of 7, 32, 100, 256, 257, 512 and 1,024 hidden units: the fixed shape is for
other machines. ``tests/scoring/test_record_scores.py`` has the property.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from gentext.arrow import TableIterator
from gentext.components.tokenizers import check_ids
from gentext.describe import tokenizer_of
from gentext.errors import FileFormatError, GenError, refuse_exit
from gentext.interfaces import OpenSampler
from gentext.scoring.score import as_scored_model, positions_in_memory, token_losses
from gentext.scoring.unknown_characters import UnknownCharacters
from gentext.search.prefixes import RowStates, RowStepper, state_bytes
from gentext.settings import cores

__all__ = ["TextScore"]

#: Positions of a call at the beginning of texts, where many agree, and at most: Ctrl-C has to wait for a call.
FEWEST_POSITIONS, MOST_POSITIONS = 4, 256
#: Rows of a call at least, and about how many symbols it reads at least.
FEWEST_ROWS, CALL_SYMBOLS = 16, 256
#: A window ends with so many texts, or with the text that has its last so many symbols.
WINDOW_TEXTS, WINDOW_SYMBOLS = 1 << 14, 1 << 20
#: Bytes of the states of the texts of a window, at most.
STATE_BYTES = 1 << 27
#: Threads that call a model, at most.
MAX_WORKERS = 8
#: Windows that are read at a time.
MAX_WINDOWS = 2
#: Bytes of a token where texts are compared.
TOKEN_BYTES = np.dtype(np.int64).itemsize

Tokens = NDArray[np.int64]
Logprobs = NDArray[np.float64]
Tag = TypeVar("Tag")


@dataclasses.dataclass(frozen=True)
class TextScore:
    """What a model thinks of a text that it reads from a fresh state."""

    text: str
    """The text as it was given, with the characters that were left out."""
    tokens: Tokens = dataclasses.field(repr=False)
    """The id of each symbol that is predicted, int64 [n]: those of the text that the model reads; in a model of
    records, also the boundary symbol, with which the record ends."""
    logprobs: Logprobs = dataclasses.field(repr=False)
    """Natural logarithm of the probability of each of them, float64 [n]."""

    @property
    def logprob(self) -> float:
        """Natural logarithm of the probability of the text, in nats; in a model of records, of the whole record."""
        return float(self.logprobs.sum())

    @property
    def bits(self) -> float:
        """The length in bits that a code by this model has for the text."""
        return -self.logprob / math.log(2)


class TextScores(TableIterator[TextScore]):
    """The scores of texts, in their order, which are read while it is iterated over."""

    COLUMNS: ClassVar[Mapping[str, str]] = {"text": "string", "logprob": "float64", "bits": "float64"}

    def __init__(self, scores: Iterator[TextScore]) -> None:
        self._scores = scores

    def __next__(self) -> TextScore:
        return next(self._scores)


class TextScorer:
    """Encodes texts for one model, and reads windows of them. Raises PluginError for a sampler without logits."""

    def __init__(self, sampler: OpenSampler, characters: UnknownCharacters | None = None) -> None:
        """``characters`` counts those that the model does not know, and decides about them."""
        model = as_scored_model(sampler)
        self.bundle = model.bundle
        self.unknown = characters or UnknownCharacters([self.bundle])
        self._stepper = RowStepper(model, model.bundle, FEWEST_ROWS)
        self._tokenizer = tokenizer_of(self.bundle)
        boundary = self.bundle.boundary
        self._tail = np.array([] if boundary is None else [boundary], np.int64)

    @property
    def window_texts(self) -> int:
        """How many texts a window may have."""
        return max(1, min(WINDOW_TEXTS, STATE_BYTES // max(1, state_bytes(self.bundle))))

    def encode(self, text: str) -> Tokens:
        """Return the tokens of a text that are predicted. Raises CorpusError where an unknown character is an error."""
        name, unknown_symbol = self.bundle.tokenizer.name, self.bundle.tokenizer.unknown
        text = self.unknown.leave_out(text)
        with refuse_exit(f"the tokenizer {name!r}"):
            try:
                ids = check_ids(name, self._tokenizer.encode(text), self.bundle.vocab_size)
            except GenError:
                self.unknown.count_replaced(text, self._tokenizer)  # raises the error of an unknown character
                raise
        if unknown_symbol is not None:
            self.unknown.count += int(np.count_nonzero(ids == unknown_symbol))
        return np.concatenate([ids, self._tail], dtype=np.int64)

    def read_window(self, texts: Sequence[Tokens], executor: Executor) -> list[Logprobs]:
        """Return the log-probabilities of texts; the executor's threads call the model.

        Raises FileFormatError where one is not a number.
        """
        encoded = [tokens.tobytes() for tokens in texts]
        logprobs: list[list[Logprobs]] = [[np.empty(0)] for _ in texts]
        states = [meta.initial_row()[None] for meta in self.bundle.states]
        # The texts that are not read to their end, and the row of the states from which each goes on.
        rows = {index: 0 for index, tokens in enumerate(texts) if len(tokens)}
        begin = 0
        while rows:
            row_count, positions = call_shape(begin, self.bundle.vocab_size)
            nodes = _group_texts(encoded, rows, begin, begin + positions)
            calls = [
                executor.submit(self._read_nodes, nodes[first : first + row_count], row_count, states)
                for first in range(0, len(nodes), row_count)
            ]
            results = [call.result() for call in calls]
            for node, node_logprobs in zip(nodes, (row for result, _ in results for row in result), strict=True):
                for index in node.texts:
                    logprobs[index].append(node_logprobs)
            # The states are most of the memory: those of a window are there twice, and no more often.
            parts = [list(arrays) for arrays in zip(*(call_states for _, call_states in results), strict=True)]
            del calls, results
            states = []
            while parts:
                states.append(np.concatenate(parts.pop(0)))
            begin += positions
            end = begin * TOKEN_BYTES
            # The nodes behind which a text goes on come first, and so do their states.
            rows = {index: row for row, node in enumerate(nodes) for index in node.texts if len(encoded[index]) > end}
        return [np.concatenate(arrays) for arrays in logprobs]

    def _read_nodes(
        self, nodes: Sequence[_Node], row_count: int, states: RowStates
    ) -> tuple[list[Logprobs], RowStates]:
        """Return the log-probabilities of the symbols of each node, and the states of those that go on."""
        lengths = np.zeros(row_count, np.int64)
        lengths[: len(nodes)] = [len(node.tokens) // TOKEN_BYTES for node in nodes]
        targets = np.zeros((row_count, lengths.max()), np.int64)
        inputs = np.full_like(targets, self.bundle.start)
        for row, node in enumerate(nodes):
            targets[row, : lengths[row]] = np.frombuffer(node.tokens, np.int64)
            if node.previous:
                inputs[row, 0] = np.frombuffer(node.previous, np.int64)[0]
        inputs[:, 1:] = targets[:, :-1]
        state_rows = [node.row for node in nodes] + [0] * (row_count - len(nodes))
        logits, new_states = self._stepper.read(inputs, [state[state_rows] for state in states])
        is_counted = np.arange(targets.shape[1]) < lengths[:, None]
        losses = token_losses(logits[is_counted], targets[is_counted])
        if np.isnan(losses).any():
            raise FileFormatError(
                "the model's loss is not a number (NaN): its weights are damaged; export or train it again"
            )
        ends = np.cumsum(lengths)[: len(nodes)].tolist()
        logprobs = [-losses[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
        open_count = sum(node.is_open for node in nodes)
        # Copies, where a part would keep the states of all rows in memory.
        return logprobs, [state if open_count == row_count else state[:open_count].copy() for state in new_states]


def call_shape(begin: int, vocab_size: int) -> tuple[int, int]:
    """Return the rows of a call and its positions, at most, from the position ``begin`` on.

    The further on in texts, the fewer of them agree so far, and the fewer are left. The logits of all threads fit into
    memory.
    """
    allowed = positions_in_memory(MAX_WORKERS, vocab_size, MOST_POSITIONS * FEWEST_ROWS)
    positions = min(max(FEWEST_POSITIONS, begin // 4), MOST_POSITIONS)
    rows = min(max(FEWEST_ROWS, CALL_SYMBOLS // positions), allowed)
    return rows, min(positions, allowed // rows)


@dataclasses.dataclass(slots=True)
class _Node:
    """A few positions of texts that agree up to their end."""

    row: int
    """The row of the states before it."""
    previous: bytes
    """The token before it; empty at the beginning of texts."""
    tokens: bytes
    texts: list[int] = dataclasses.field(default_factory=list)
    """The indices of the texts."""
    is_open: bool = False
    """Whether one of the texts goes on behind it."""


def _group_texts(encoded: Sequence[bytes], rows: Mapping[int, int], begin: int, end: int) -> list[_Node]:
    """Return the nodes of texts at the positions from ``begin`` to ``end``, those that go on first, then by length.

    ``encoded`` are the tokens of each text, and ``rows`` has, by the index of the text, the row of the states before.
    """
    begin, end = begin * TOKEN_BYTES, end * TOKEN_BYTES
    nodes: dict[tuple[int, bytes], _Node] = {}
    for index, row in rows.items():
        tokens = encoded[index]
        key = row, tokens[begin:end]
        node = nodes.get(key)
        if node is None:
            node = nodes[key] = _Node(row, tokens[max(0, begin - TOKEN_BYTES) : begin], key[1])
        node.texts.append(index)
        node.is_open = node.is_open or len(tokens) > end
    return sorted(nodes.values(), key=lambda node: (node.is_open, len(node.tokens)), reverse=True)


@dataclasses.dataclass(frozen=True)
class EncodedText(Generic[Tag]):
    """A text in the tokens of each of some models."""

    tag: Tag
    """What the caller gets back beside the scores."""
    text: str
    tokens: Sequence[Tokens]


#: The scores of some texts by each model, in the order of the texts.
ScoredWindow = list[tuple[Tag, list[TextScore]]]


def score_texts(
    scorers: Sequence[TextScorer], texts: Iterable[EncodedText[Tag]], workers: int = 0
) -> Iterator[ScoredWindow[Tag]]:
    """Yield the scores of texts by each of several models, in their order, a window at a time.

    While the models read, the next window is collected: up to MAX_WINDOWS + 1 of them are in memory. An error that
    ``texts`` raises is raised after the scores of all texts before it.

    :param workers: threads that call a model; 0 for one on each core.
    """
    window_texts = min(scorer.window_texts for scorer in scorers)
    windows, error = collections.deque[Future[ScoredWindow[Tag]]](), None
    iterator = iter(texts)
    # Two windows at a time, so that threads go on while the texts of one are grouped.
    with _executor(MAX_WINDOWS) as readers, _executor(workers or min(cores(), MAX_WORKERS)) as callers:
        while error is None:
            window: list[EncodedText[Tag]] = []
            error = _fill_window(window, iterator, window_texts)
            if not window:
                break
            windows.append(readers.submit(_score_window, scorers, window, callers))
            if len(windows) > MAX_WINDOWS:
                yield windows.popleft().result()
        while windows:
            yield windows.popleft().result()
    if error is not None:
        raise error


@contextlib.contextmanager
def _executor(threads: int) -> Iterator[Executor]:
    """Return an executor that drops, at the end, what it has not begun."""
    executor = ThreadPoolExecutor(threads)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def _fill_window(
    window: list[EncodedText[Tag]], texts: Iterator[EncodedText[Tag]], window_texts: int
) -> GenError | None:
    """Move texts to a window until it is full, or return the error that came in place of the next text."""
    symbols = 0
    try:
        for text in texts:
            window.append(text)
            symbols += max(map(len, text.tokens))
            if len(window) >= window_texts or symbols >= WINDOW_SYMBOLS:
                break
    except GenError as error:
        return error
    return None


def _score_window(
    scorers: Sequence[TextScorer], window: Sequence[EncodedText[Tag]], executor: Executor
) -> ScoredWindow[Tag]:
    """Return the scores of texts; this waits for the executor's threads, so it runs in a thread of its own."""
    logprobs = [
        scorer.read_window([text.tokens[index] for text in window], executor) for index, scorer in enumerate(scorers)
    ]
    return [
        (text.tag, [TextScore(text.text, *pair) for pair in zip(text.tokens, text_logprobs, strict=True)])
        for text, *text_logprobs in zip(window, *logprobs, strict=True)
    ]

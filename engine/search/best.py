"""The most probable texts of a model, in order, each with its log-probability.

A beginning is at least as probable as all texts that begin with it together, so the search always reads on behind the
most probable beginnings (uniform-cost search, the case of A* without a heuristic: Hart, Nilsson, Raphael, "A formal
basis for the heuristic determination of minimum cost paths", 1968). A text is proven to be the next one as soon as no
open beginning is more probable. The model reads the last symbols of many beginnings in one call.

The log-probability of a text is that of writing it and ending it there: the sum over its symbols, and for a text that a
stop string ends over the symbols of the stop string too. Where several stop strings may end the same text, it is that
of any of them: their probabilities are added. A record ends with the boundary symbol, whose log-probability counts.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from gentext.console import Bar
from gentext.exported.metadata import Bundle
from gentext.interfaces import Ids
from gentext.search.endings import CHARACTER, COUNT, TextEndings
from gentext.search.prefixes import (
    BestText,
    Child,
    CompleteText,
    Ending,
    Prefix,
    RowStates,
    RowStepper,
    StatePool,
    TextRanking,
    log_probabilities,
    prefix_bytes,
    sum_probabilities,
)
from gentext.stepping import StepModel

#: Beginnings whose last symbols the model reads in one call, at most.
BATCH_ROWS = 128
#: Numbers of the logits of one call, at most: 32 MB as float64.
BATCH_NUMBERS = 2**22
#: Beginnings of stop strings that the model reads behind some texts at a time, at most.
STOP_ROWS = 2**12


class TextSearch:
    """A search for the most probable texts of a model behind a prime.

    :param endings: where the texts end.
    :param position: the position of the empty text, see `gentext.search.endings`.
    :param count: how many texts to search.
    :param temperature: by which the logits are divided; 1: the model's own probabilities.
    :param memory: bytes that the open beginnings may take.
    :param beam: how many beginnings of a length are kept; None: all of them, for an exact result.
    """

    def __init__(
        self,
        model: StepModel,
        bundle: Bundle,
        endings: TextEndings,
        prime: Ids,
        position: tuple[int, ...],
        *,
        count: int,
        temperature: float = 1.0,
        memory: int = 10**9,
        beam: int | None = None,
    ) -> None:
        self.count, self.beam = count, beam
        self.bound = 0.0
        """No text that was not found yet has a greater log-probability."""
        self.is_complete = False
        """Whether the search is over, and was not ended by the bound on its memory."""
        self.read_count = 0
        """Beginnings whose last symbol the model has read."""
        self._bundle, self._endings, self._temperature = bundle, endings, temperature
        self._prime, self._position = prime, position
        slots = memory // prefix_bytes(bundle)
        self._batch_rows = max(1, min(BATCH_ROWS, BATCH_NUMBERS // bundle.vocab_size, slots // 8))
        self._max_endings = max(1, STOP_ROWS // endings.stop_states)
        self._stepper = RowStepper(model, bundle, self._batch_rows)
        self._pool = StatePool(bundle, slots)
        self._serials = itertools.count()
        """Numbers of the open beginnings, so that those of the same log-probability are never compared."""
        self._open: list[tuple[float, int, Child | Ending]] = []
        """A heap of open beginnings, by the negative of the greatest log-probability that their texts may have."""
        self._ranking = TextRanking(count)
        """The complete texts, of which all that were taken out are proven."""
        self._dropped = -math.inf
        """The greatest log-probability of a beginning that a beam has dropped."""

    @property
    def is_exact(self) -> bool:
        """Whether the texts are proven to be the most probable ones."""
        return self._dropped == -math.inf

    def find(self, bar: Bar) -> Iterator[BestText]:
        """Yield the texts in order, each as soon as it is proven; with a beam, at the end.

        Ends early where the memory is used up; Ctrl-C may end it too. In both cases ``bound`` holds.

        :param bar: shows how many texts are proven.
        """
        logits, states = self._stepper.read_prime(self._prime)
        root = Prefix(None, -1, 0.0, self._position)
        if self._endings.is_text(self._position):
            self._ranking.add(CompleteText(root, None, root.logprob, self._endings.finish))
        self._open_prefixes([root], logits, states)
        if self.beam is not None:
            self._search_beam(self.beam, bar)
        for number in range(1, self.count + 1):
            while self._open and -self._open[0][0] > self._ranking.highest:
                self.bound = -self._open[0][0]
                if not self._read_batch():
                    return
                bar.advance(0, f"{number - 1} of {self.count} proven, the others at most {self.bound:.2f}")
            if self._ranking.highest == -math.inf:
                break
            text = self._ranking.take()
            self.bound = max(text.logprob, self._dropped)
            bar.advance(1 if self.beam is None else 0)
            yield text.decode(self._bundle.token_bytes)
        else:
            self.is_complete = True
            return
        self.bound, self.is_complete = self._dropped, True

    # -- reading on ----------------------------------------------------------------------------

    def _read_batch(self) -> bool:
        """Read on behind the most probable open beginnings; return whether there was memory for it."""
        if self._pool.free < self._batch_rows:
            self._drop_improbable()
            if self._pool.free < self._batch_rows:
                return False
        children: list[Prefix] = []
        endings: list[Ending] = []
        while self._is_open() and len(children) < self._batch_rows and len(endings) < self._max_endings:
            entry = heapq.heappop(self._open)[2]
            if isinstance(entry, Ending):
                endings.append(entry)
            else:
                children.append(self._take_child(entry))
        self._read(children)
        self._read_endings(endings)
        return True

    def _is_open(self) -> bool:
        """Return whether one of the best texts may have an open beginning."""
        return bool(self._open) and -self._open[0][0] > self._ranking.floor

    def _drop_improbable(self) -> None:
        """Remove the open beginnings that no text among the best begins with."""
        floor = self._ranking.floor
        for negative_logprob, _, entry in self._open:
            if -negative_logprob <= floor:
                self._release(entry.prefix)
        self._open = [entry for entry in self._open if -entry[0] > floor]
        heapq.heapify(self._open)

    def _take_child(self, child: Child) -> Prefix:
        """Return a child, and open its next sibling. The parent's state is in use until `_read` has read the child."""
        parent, rank = child
        assert parent.child_tokens is not None and parent.child_logprobs is not None
        prefix = Prefix(parent, int(parent.child_tokens[rank]), float(parent.child_logprobs[rank]))
        if rank + 1 < len(parent.child_tokens):
            parent.slot_users += 1
            self._push(float(parent.child_logprobs[rank + 1]), Child(parent, rank + 1))
        return prefix

    def _push(self, logprob: float, entry: Child | Ending) -> None:
        heapq.heappush(self._open, (-logprob, next(self._serials), entry))

    def _release(self, prefix: Prefix) -> None:
        """Count that one entry less needs the state of a prefix."""
        prefix.slot_users -= 1
        if not prefix.slot_users:
            self._pool.release(prefix)

    def _read(self, prefixes: Sequence[Prefix]) -> None:
        """Have the model read the last symbol of some prefixes, and open what may follow."""
        if not prefixes:
            return
        parents = [prefix.parent for prefix in prefixes if prefix.parent is not None]
        tokens = np.array([prefix.token for prefix in prefixes], np.int64)
        positions = self._endings.advance(np.array([parent.position for parent in parents]), tokens)
        for prefix, position in zip(prefixes, positions.tolist(), strict=True):
            prefix.position = tuple(position)
        logits, states = self._stepper.step(tokens, self._pool.read(parents))
        for parent in parents:
            self._release(parent)
        self.read_count += len(prefixes)
        self._open_prefixes(prefixes, logits, states)

    def _open_prefixes(self, prefixes: Sequence[Prefix], logits: NDArray[np.float32], states: RowStates) -> None:
        """Add the texts that a symbol behind each of N prefixes completes, and open the others.

        ``logits`` [N, V] and ``states`` are those after the prefixes.
        """
        prefix_logprobs = np.array([prefix.logprob for prefix in prefixes])
        logprobs = prefix_logprobs[:, None] + log_probabilities(logits, self._temperature)
        positions = np.array([prefix.position for prefix in prefixes])
        following = self._endings.follow(positions)
        self._add_texts(prefixes, np.where(following.completes, logprobs, -np.inf))
        if self._endings.has_stops:
            self._open_endings(prefixes, positions, logprobs)
        open_logprobs = np.where(following.continues & (logprobs > self._ranking.floor), logprobs, -np.inf)
        order = np.argsort(-open_logprobs, axis=1, kind="stable")
        child_counts = np.count_nonzero(open_logprobs > -np.inf, axis=1)
        for row, prefix in enumerate(prefixes):
            if child_counts[row]:
                child_tokens = order[row, : child_counts[row]]
                prefix.child_tokens = child_tokens.astype(np.int32)
                prefix.child_logprobs = open_logprobs[row, child_tokens]
                prefix.slot_users += 1
                self._push(float(prefix.child_logprobs[0]), Child(prefix, 0))
        self._pool.store(states, [(row, prefix) for row, prefix in enumerate(prefixes) if prefix.slot_users])

    # -- complete texts ------------------------------------------------------------------------

    def _add_texts(self, prefixes: Sequence[Prefix], logprobs: NDArray[np.float64]) -> None:
        """Add the texts that end after a symbol; ``logprobs`` [N, V] is -inf for symbols that complete none."""
        rows, tokens = np.nonzero(logprobs > self._ranking.floor)
        text_logprobs = logprobs[rows, tokens]
        for index in np.argsort(-text_logprobs, kind="stable")[: self.count].tolist():
            prefix, token = prefixes[rows[index]], int(tokens[index])
            self._ranking.add(CompleteText(prefix, token, float(text_logprobs[index]), self._endings.finish))

    def _open_endings(
        self, prefixes: Sequence[Prefix], positions: NDArray[np.int64], logprobs: NDArray[np.float64]
    ) -> None:
        """Add the prefixes that one symbol ends as texts, and open those that a longer stop string may end."""
        following = self._endings.follow_stop(positions, positions[:, COUNT])
        is_whole = positions[:, CHARACTER, None] == 0
        end_logprobs = sum_probabilities(logprobs, following.completes & is_whole)
        boundary_logprobs = np.full(len(prefixes), -np.inf)
        if (boundary := self._bundle.boundary) is not None:
            boundary_logprobs = np.where(self._endings.may_end_record(positions), logprobs[:, boundary], -np.inf)
        continues = following.continues & is_whole & (logprobs > -np.inf)
        bounds = np.logaddexp(end_logprobs, sum_probabilities(logprobs, continues))
        for row in np.flatnonzero(bounds > self._ranking.floor).tolist():
            prefix, tokens = prefixes[row], np.flatnonzero(continues[row])
            if not len(tokens):
                self._add_ended(prefix, float(end_logprobs[row]), float(boundary_logprobs[row]))
                continue
            prefix.slot_users += 1
            ending = Ending(
                prefix, float(end_logprobs[row]), tokens, logprobs[row, tokens], float(boundary_logprobs[row])
            )
            self._push(min(float(bounds[row]), prefix.logprob), ending)

    def _read_endings(self, endings: Sequence[Ending]) -> None:
        """Have the model read the stop strings behind some texts to their end, and add the texts."""
        if not endings:
            return
        text_positions = np.array([ending.prefix.position for ending in endings])
        totals = np.array([ending.logprob for ending in endings])
        # Each row is the beginning of a stop string behind the text of one ending.
        numbers = np.repeat(np.arange(len(endings)), [len(ending.tokens) for ending in endings])
        tokens = np.concatenate([ending.tokens for ending in endings])
        logprobs = np.concatenate([ending.logprobs for ending in endings])
        positions = text_positions[numbers]
        states = self._pool.read([endings[number].prefix for number in numbers.tolist()])
        while len(tokens):
            positions = self._endings.advance(positions, tokens)
            logits, states = self._stepper.step(tokens, states)
            next_logprobs = logprobs[:, None] + log_probabilities(logits, self._temperature)
            following = self._endings.follow_stop(positions, text_positions[numbers, COUNT])
            np.logaddexp.at(totals, numbers, sum_probabilities(next_logprobs, following.completes))
            rows, tokens = np.nonzero(following.continues & (next_logprobs > -np.inf))
            logprobs, positions, numbers = next_logprobs[rows, tokens], positions[rows], numbers[rows]
            states = [state[rows] for state in states]
        for ending, total in zip(endings, totals.tolist(), strict=True):
            self._add_ended(ending.prefix, total, ending.boundary_logprob)
            self._release(ending.prefix)

    def _add_ended(self, prefix: Prefix, logprob: float, boundary_logprob: float) -> None:
        """Add a text that stop strings may end, or the boundary symbol: it has the finish that is more probable."""
        is_record = boundary_logprob > logprob - math.log(2)
        token = self._bundle.boundary if is_record else None
        self._ranking.add(CompleteText(prefix, token, min(logprob, prefix.logprob), "end" if is_record else "stop"))

    # -- beam ----------------------------------------------------------------------------------

    def _search_beam(self, width: int, bar: Bar) -> None:
        """Read on behind the ``width`` most probable beginnings of each number of symbols, and drop the others."""
        while self._open:
            endings = [entry for _, _, entry in self._open if isinstance(entry, Ending)]
            for begin in range(0, len(endings), self._max_endings):
                self._read_endings(endings[begin : begin + self._max_endings])
            self._open = [entry for entry in self._open if isinstance(entry[2], Child)]
            heapq.heapify(self._open)
            children: list[Prefix] = []
            while self._is_open() and len(children) < width:
                child = heapq.heappop(self._open)[2]
                assert isinstance(child, Child)
                children.append(self._take_child(child))
            if self._is_open():
                self._dropped = max(self._dropped, -self._open[0][0])
            for _, _, entry in self._open:
                self._release(entry.prefix)
            self._open = []
            for begin in range(0, len(children), self._batch_rows):
                self._read(children[begin : begin + self._batch_rows])
            bar.advance(self.count / self._endings.length, f"{self.read_count:,} beginnings")

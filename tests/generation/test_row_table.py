"""Rows of a table come and go, share calls in any order, and get what each of them would get alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gentext.exported.signature import Port, Signature
from gentext.generation.row_table import RowTable
from gentext.noise import uniforms

SYMBOLS = 1000


class NoiseModel:
    """A generator that draws what the noise of a row says, and adds up its symbols in a state [2, N]."""

    states = (Port("sums", "int64", (2, "N")), Port("ended", "int64", ("N",)))
    fed = (Port("token", "int64", ("N",)), Port("fresh", "bool", ("N",)), Port("forced", "int64", ("K", "N")))
    signature = Signature((*states, *fed, Port("noise", "float32", ("K", "N", 1))), (), states, {"draw": (0, 1)})
    positions = None

    def call(self, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        assert {name: np.shape(feeds[name])[-1] for name in ("token", "fresh", "sums", "ended")} == dict.fromkeys(
            ("token", "fresh", "sums", "ended"), feeds["forced"].shape[1]
        )
        drawn = (feeds["noise"][:, :, 0] * SYMBOLS).astype(np.int64)
        tokens = np.where(feeds["forced"] < 0, drawn, feeds["forced"])
        sums = feeds["sums"] + [[1], [2]] * tokens.sum(axis=0)
        return {"tokens": tokens, "logprobs": tokens * 1.0, "ended_out": feeds["ended"], "sums_out": sums}


class Texts:
    """Rows of a table, by their streams, with all that they have drawn or read."""

    def __init__(self) -> None:
        bundle: Any = SimpleNamespace(vocab_size=SYMBOLS, chain=())
        self.table, self.streams = RowTable(NoiseModel(), bundle), list[int]()
        self.tokens: dict[int, list[int]] = {}

    def add(self, *streams: int, unread: int = 0) -> None:
        count = len(streams)
        arrays = {"token": np.zeros(count, np.int64), "ended": np.zeros(count, np.int64)}
        keys = np.array([(7, stream) for stream in streams], np.uint64)
        self.table.add(arrays | {"sums": np.zeros((2, count), np.int64)}, keys, np.full(count, -unread))
        self.streams += streams
        self.tokens |= {stream: [] for stream in streams}

    def remove(self, *streams: int) -> None:
        self.table.remove([self.streams.index(stream) for stream in streams])
        self.streams = [stream for stream in self.streams if stream not in streams]

    def call(self, size: int, rows: Sequence[int] | None = None, forced: int = -1) -> None:
        chosen = None if rows is None else np.array(rows)
        streams = self.streams if rows is None else [self.streams[row] for row in rows]
        drawn = self.table.call(np.full((size, len(streams)), forced), chosen)
        for stream, tokens in zip(streams, drawn.token_rows, strict=True):
            self.tokens[stream] += tokens


def drawn_alone(stream: int, count: int, read: Sequence[int] = ()) -> list[int]:
    """Return the tokens of a row: those that it reads, then those that it draws."""
    symbols: NDArray[np.float32] = uniforms(7, stream, "draw", 0, count)[:, 0] * np.float32(SYMBOLS)
    return [*read, *symbols.astype(np.int64).tolist()]


def test_rows_that_come_and_go_draw_as_if_each_were_alone() -> None:
    texts = Texts()
    texts.add(0, 1)
    texts.add(2)
    texts.call(3)
    texts.call(2)
    texts.remove(1)
    texts.add(3, 4, unread=2)
    texts.call(2, rows=[3, 2], forced=9)  # rows 3 and 2 read; the others wait
    texts.call(4)
    texts.call(5, rows=[2, 0])
    texts.call(1)
    texts.remove(0, 4)
    texts.call(30)
    assert texts.tokens == {
        0: drawn_alone(0, 15),
        1: drawn_alone(1, 5),
        2: drawn_alone(2, 40),
        3: drawn_alone(3, 40, [9, 9]),
        4: drawn_alone(4, 5, [9, 9]),
    }
    assert texts.streams == [2, 3] and texts.table.positions.tolist() == [40, 40]
    sums = texts.table.take([1], texts.table.arrays)["sums"]
    assert sums.tolist() == [[sum(texts.tokens[3])], [2 * sum(texts.tokens[3])]]


def test_a_row_that_begins_anew_has_its_own_noise() -> None:
    texts = Texts()
    texts.add(0, 1)
    texts.call(3)
    texts.table.restart([1], np.array([(7, 5)], np.uint64), np.array([0]))
    texts.table.put([1], {"sums": np.zeros((2, 1), np.int64)})
    texts.call(4)
    assert texts.tokens == {0: drawn_alone(0, 7), 1: drawn_alone(1, 3) + drawn_alone(5, 4)}
    assert texts.table.arrays["sums"][:, 1].tolist() == [sum(drawn_alone(5, 4)), 2 * sum(drawn_alone(5, 4))]

"""Writes the texts of one request in slots: one that ends makes room for the next, and nobody waits for the longest."""

from __future__ import annotations

import collections
from collections.abc import Iterator

from gentext.console import Bar
from gentext.errors import GenError
from gentext.generation.model_calls import SlotSampler
from gentext.generation.rows import RowRequest, Slot
from gentext.generation.slots import Slots
from gentext.generation.writing import Writing
from gentext.sampling.decoder import GeneratedText
from gentext.sampling.stored import is_compiled

#: Seconds of a call, about: nobody waits for a symbol, but for the progress bar.
CALL_SECONDS = 0.5
#: Texts that have begun and wait for one before them to end, or are in slots, at most: a multiple of the slots.
WAITING_BATCHES = 4


def open_slots(writing: Writing, rows: int) -> Slots | None:
    """Return so many slots for the texts of a request; None where its sampler has none, or not for its chain.

    They need the code of links with states, which may not be installed.
    """
    sampler = writing.sampler
    if not isinstance(sampler, SlotSampler) or not is_compiled(sampler.bundle, writing.chosen_chain.chain):
        return None
    if (model := sampler.slot_model) is None:
        return None
    try:
        return Slots(model, sampler.bundle, rows, chunk_seconds=CALL_SECONDS, first_seconds=CALL_SECONDS)
    except GenError:
        return None


def write_texts(
    slots: Slots, requests: Iterator[RowRequest], most_texts: int, bar: Bar | None
) -> Iterator[GeneratedText]:
    """Write texts in slots; yield them in order, each as soon as it and all before it are complete.

    No more than ``most_texts`` are in memory, or as many as there are slots.
    """
    begun: collections.deque[Slot] = collections.deque()
    window = max(slots.count, min(most_texts, WAITING_BATCHES * slots.count))
    while True:
        while slots.free and len(begun) < window and (request := next(requests, None)) is not None:
            begun.append(slots.join(request))
        if not begun:
            return
        for piece in slots.advance():
            if piece.error is not None:
                raise piece.error
            if bar is not None:
                bar.advance(len(piece.text))
        while begun and begun[0].text.finish != "running":
            yield begun.popleft().text

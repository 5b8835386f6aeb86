"""Ctrl-C during training is a wish, looked at between two steps, when everything can be saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

#: Ctrl-C, a polite kill, and a terminal that was closed.
SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


class Interrupts:
    """Turns the first of these signals into ``asked`` and calls ``then``; a second one raises KeyboardInterrupt.

    ``patient``: a second one does not, as torchrun may repeat the first, and kills on its own in the end.
    """

    def __init__(self, then: Callable[[], None] = lambda: None, *, patient: bool = False) -> None:
        self.asked, self._patient = False, patient
        self._then = then
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # the only one that may set handlers
            for number in SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:  # nohup, or a shell's background: stay deaf
                    self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and not self._patient:
            raise KeyboardInterrupt
        self.asked = True
        self._then()

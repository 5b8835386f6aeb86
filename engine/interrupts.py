"""Ctrl-C: what it means to training, and to a text without end.

During training the first one only sets a flag, and training stops at a point where everything is saved.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

#: The signals of Ctrl-C, of the command ``kill``, and of a terminal that is closed.
STOP_SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


class EndedByUser(Exception):
    """The user has ended with Ctrl-C what has no other end: no error, but exit status 130."""


class Interrupts:
    """A context in which the first of `STOP_SIGNALS` only sets ``requested``; a second one raises KeyboardInterrupt.

    :param on_request: called when the first signal comes.
    :param ignore_repeats: a second signal does nothing. For torchrun, which may repeat the first one, and kills a
        process that does not end in time.
    """

    def __init__(self, on_request: Callable[[], None] = lambda: None, *, ignore_repeats: bool = False) -> None:
        self.requested = False
        """Whether the user wants the program to stop."""
        self._on_request, self._ignore_repeats = on_request, ignore_repeats
        self._previous_handlers: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread set handlers
            for signal_number in STOP_SIGNALS:
                # nohup and the background of a shell ignore some signals: these stay ignored.
                if signal.getsignal(signal_number) != signal.SIG_IGN:
                    self._previous_handlers[signal_number] = signal.signal(signal_number, self._handle_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for signal_number, handler in self._previous_handlers.items():
            signal.signal(signal_number, handler)

    def _handle_signal(self, signal_number: int, frame: FrameType | None) -> None:
        if self.requested and not self._ignore_repeats:
            raise KeyboardInterrupt
        self.requested = True
        self._on_request()

"""Ctrl-C: what it means to training, to a text without end, and to a long call into a library.

During training the first one only sets a flag, and training stops at a point where everything is saved.

Python handles a signal between two instructions of its main thread, so not before a call into onnxruntime has
returned, and the graph of a stranger may never return. `call_stoppable` has another thread stop the call. That thread
reads a pipe into which Python's handler in C writes at once, see `signal.set_wakeup_fd`; so a call costs no more than
usual. Windows has no such pipe: there a call goes on to its end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar

from gentext.console import report_error

__all__ = ["Interrupts"]

#: The signals of Ctrl-C, of the command ``kill``, and of a terminal that is closed.
STOP_SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
#: Seconds after Ctrl-C within which a call must have ended, where the process is to end with it.
STOP_SECONDS = 1.5
#: The exit status of a command that Ctrl-C has ended, by convention.
INTERRUPTED_STATUS = 130
Result = TypeVar("Result")


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


# -- calls that do not return --------------------------------------------------------------------


class _StoppableCall:
    """A call that is under way."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self.stop = stop
        self.is_stopped = False
        """Whether Ctrl-C has stopped it."""


class _Watcher:
    """The thread that stops calls on Ctrl-C. There is at most one of it in a process."""

    def __init__(self) -> None:
        self.calls: set[_StoppableCall] = set()
        self.ends_process = False
        """Whether the process ends where a call cannot be stopped."""
        self._is_prepared = False

    def prepare(self) -> None:
        """Start the thread, unless it runs already or somebody else gets the signals. The main thread calls this."""
        if self._is_prepared or os.name != "posix":
            return
        self._is_prepared = True
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        other_writer = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        if other_writer != -1:
            signal.set_wakeup_fd(other_writer)
            os.close(reader)
            os.close(writer)
            return
        # A forked process has the pipe, but not the thread: its signals must not stop the calls of this one.
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
        threading.Thread(target=self._watch, args=[reader], name="gentext-interrupts", daemon=True).start()

    def _watch(self, reader: int) -> None:
        while signal_numbers := os.read(reader, 256):
            # With another handler, such as that of training, Ctrl-C does not mean that all ends at once.
            if signal.SIGINT in signal_numbers and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                self._stop_calls(list(self.calls))

    def _stop_calls(self, calls: list[_StoppableCall]) -> None:
        for call in calls:
            call.is_stopped = True
            call.stop()
        if not calls or not self.ends_process:
            return
        ending_at = time.monotonic() + STOP_SECONDS
        while self.calls.intersection(calls):
            if time.monotonic() > ending_at:
                report_error("stopped by Ctrl-C; what was written before is kept")
                os._exit(INTERRUPTED_STATUS)
            time.sleep(0.02)


_watcher = _Watcher()


def call_stoppable(call: Callable[[], Result], stop: Callable[[], None]) -> Result:
    """Return the result of a call into a library, which Ctrl-C ends at once with KeyboardInterrupt.

    :param stop: makes the call raise an exception soon. Another thread calls this.

    Only the main thread gets a KeyboardInterrupt, so in others this is a call like any other; so it is where Ctrl-C has
    another handler than Python's own.
    """
    if threading.current_thread() is not threading.main_thread():
        return call()
    _watcher.prepare()
    stoppable_call = _StoppableCall(stop)
    _watcher.calls.add(stoppable_call)
    try:
        return call()
    except Exception:
        if stoppable_call.is_stopped:
            raise KeyboardInterrupt from None
        raise
    finally:
        _watcher.calls.discard(stoppable_call)


@contextlib.contextmanager
def end_stuck_process() -> Iterator[None]:
    """Let Ctrl-C end the whole process, with status 130, where a call cannot be stopped within `STOP_SECONDS`."""
    _watcher.ends_process = True
    try:
        yield
    finally:
        _watcher.ends_process = False

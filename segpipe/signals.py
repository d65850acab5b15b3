"""Handle Ctrl-C, SIGTERM and SIGHUP while something runs.

Each function does nothing outside the main thread, because Python can set signal handlers only there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_REPEAT_AFTER_S = 0.05
"""Seconds after which a signal that came during a finaliser is sent again."""


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C or SIGTERM into a request to stop: it sets the event that is yielded. The second one acts as usual."""
    requested = threading.Event()
    if not _in_main_thread():
        yield requested
        return
    former = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, _: FrameType | None) -> None:
        requested.set()
        signal.signal(number, former[number])

    for number in former:
        signal.signal(number, request)
    try:
        yield requested
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def interrupt_on_termination(*events: threading.Event) -> Iterator[None]:
    """Let SIGTERM and SIGHUP (a closed terminal) raise KeyboardInterrupt, as Ctrl-C does, so that clean-up code runs.

    Args:
        events: set by each of these signals, and by Ctrl-C. Python ignores an exception that is raised in a finaliser (`__del__`), so a
            signal that comes there is repeated a moment later; should a KeyboardInterrupt get lost nevertheless, an event cannot.
    """
    if not _in_main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        for event in events:
            event.set()
        if _is_in_finaliser(frame):
            timer = threading.Timer(_REPEAT_AFTER_S, os.kill, (os.getpid(), number))
            timer.daemon = True
            timer.start()
            return
        signal.default_int_handler(number, frame)

    numbers = [signal.SIGTERM, signal.SIGHUP]
    if events and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        numbers.append(signal.SIGINT)
    former = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _is_in_finaliser(frame: FrameType | None) -> bool:
    """Return whether a frame, or one that it was called from, is that of a `__del__`."""
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def ignore_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C while cleaning up, so that a second one does not leave child processes behind."""
    if not _in_main_thread():
        yield
        return
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)

"""Show progress with an ETA: a bar on a terminal, otherwise a line every few seconds."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
_LINE_EVERY_S = 5.0


def is_first_process() -> bool:
    """Return whether this is the first of the processes that share a training: only that one prints."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("RANK", "0") == "0"


def format_seconds(seconds: float) -> str:
    """Format seconds as '41 s', '3:05' or '2:10:00'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


class Progress:
    """A progress display that counts up to `total`. Use it as a context manager and call `advance`.

    Args:
        label: what is counted, shown first.
        total: the count at the end.
        start: the count at the beginning, for work that continues.
    """

    def __init__(self, label: str, total: int, start: int = 0) -> None:
        self.label, self.total, self.done = label, total, start
        self._start, self._began = start, time.monotonic()
        self._last_line = self._began
        self._note = ""
        self._bar = None
        if sys.stderr.isatty() and is_first_process():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("eta"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task(label, total=total, completed=start, note="")

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, by: int = 1, note: str | None = None) -> None:
        """Count `by` more; `note` replaces the text at the end of the line, such as the current loss."""
        self.done += by
        self._note = note if note is not None else self._note
        if self._bar:
            self._bar.update(self._task, completed=self.done, note=self._note)
            return
        now = time.monotonic()
        if now - self._last_line >= _LINE_EVERY_S and is_first_process():
            self._last_line = now
            rate = (self.done - self._start) / (now - self._began)
            eta = f"  eta {format_seconds((self.total - self.done) / rate)}" if rate > 0 else ""
            print(f"{self.label}  {self.done}/{self.total}{eta}  {self._note}".rstrip(), file=sys.stderr, flush=True)


def track(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    """Yield the items and show progress.

    Args:
        items: what to iterate over.
        label: what is counted, shown first.
        total: how many items there are.
    """
    with Progress(label, total) as progress:
        for item in items:
            yield item
            progress.advance()


def say(text: str) -> None:
    """Print one line for the user to stderr, since stdout is for results. Only the first process of a shared training prints."""
    if is_first_process():
        print(text, file=sys.stderr, flush=True)

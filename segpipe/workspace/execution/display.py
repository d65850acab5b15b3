"""Show a run on the terminal: one line per stage, with a bar and the time that is left, or every line of every stage."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from segpipe.progress import format_seconds, say
from segpipe.workspace.execution.estimates import remaining_seconds
from segpipe.workspace.execution.events import Event, Message, StageEnded, StageLine, StageSkipped, StageStarted
from segpipe.workspace.execution.runner import StageRun
from segpipe.workspace.pipeline import Stage

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LINE_EVERY_S = 30.0
"""How often the progress of a long stage is printed where there is no terminal."""
_REFRESH_EVERY_S = 0.5
_PROGRESS = re.compile(r"^(?P<label>\S.*?)  (?P<done>\d+)/(?P<total>\d+)(?:  eta [\d:]+(?: s)?)?(?:  (?P<note>.*))?$")
"""A line of `segpipe.progress.Progress`."""
_NOTICE = re.compile(r"\b(?:WARNING|warning|note): ")
"""Lines of a stage that are shown even if only one line per stage is wanted."""


@dataclass
class _Running:
    """The state of a stage that runs. share: how much is done, 0..1, as far as the stage has said; text: what it does now."""

    start: float
    share: float | None = None
    share_since: float = 0.0
    share_start: float = 0.0
    label: str = ""
    text: str = ""


@dataclass
class RunState:
    """The state of a run, from which the time that is left is estimated.

    Attributes:
        stages: the graph of the run.
        expected: seconds that each stage will take.
        n_devices: number of `device` stages that may run at once.
        max_parallel: number of stages that may run at once.
        done: stages that have ended or need not run.
        running: the stages that run now.
    """

    stages: Mapping[str, Stage]
    expected: Mapping[str, float]
    n_devices: int
    max_parallel: int
    done: set[str] = field(default_factory=set)
    running: dict[str, _Running] = field(default_factory=dict)

    def left_in(self, stage: str) -> float:
        """Estimate the seconds that a running stage still needs: from its own progress, or else from its expected duration."""
        state, now = self.running[stage], time.monotonic()
        expected = self.expected[stage] - (now - state.start)
        if state.share is None or state.share <= state.share_start:
            return max(1.0, expected)
        rate = (state.share - state.share_start) / max(1e-3, now - state.share_since)
        return max(1.0 if state.share < 1 else 0.0, expected, (1 - state.share) / rate) if rate else expected

    def left(self) -> float:
        """Estimate the seconds until the last stage ends."""
        running = {stage: self.left_in(stage) for stage in self.running}
        return remaining_seconds(self.stages, self.expected, self.done, running, self.n_devices, self.max_parallel)


class RunDisplay:
    """Shows a run on stderr. Use it as a context manager around the run.

    Args:
        verbose: print every line of every stage, as the log file has them.
    """

    def __init__(self, verbose: bool = False) -> None:
        self.verbose = verbose
        self._lock = threading.RLock()
        self._state: RunState | None = None
        self._stop = threading.Event()
        self._ticker: threading.Thread | None = None
        self._last_print = time.monotonic()
        self._began = time.monotonic()
        self._bar: Progress | None = None
        self._rows: dict[str, TaskID] = {}
        self._total: TaskID | None = None

    def __enter__(self) -> RunDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(self, state: RunState) -> None:
        """Start to show a run: its graph, the expected durations, and the stages that need not run (`state.done`)."""
        with self._lock:
            self._state, self._began = state, time.monotonic()
            if sys.stderr.isatty():
                self._bar = _progress_bars()
                self._total = self._bar.add_task("whole run", total=1.0, note="")
                self._bar.start()
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._ticker.start()

    def close(self) -> None:
        """Remove the bars. The lines of the stages stay."""
        self._stop.set()
        if self._ticker is not None:
            self._ticker.join()
        with self._lock:
            if self._bar is not None:
                self._bar.stop()
                self._bar = None

    def __call__(self, event: Event) -> None:
        """Show an event."""
        match event:
            case Message(text):
                self._print(text)
            case StageStarted(stage):
                self._start(stage)
            case StageLine(stage, text):
                self._read_line(stage, text)
            case StageEnded(run):
                self._end(run)
            case StageSkipped(stage):
                self._skip(stage)

    def _start(self, stage: str) -> None:
        """Show a row for the stage."""
        with self._lock:
            if self._state is not None:
                self._state.running[stage] = _Running(time.monotonic())
            if self._bar is not None:
                self._rows[stage] = self._bar.add_task(stage, total=1.0, note="")
        if self.verbose:
            self._print(f"{stage:<20} started")

    def _read_line(self, stage: str, text: str) -> None:
        """Read the progress of the stage from its line; print the line if it is a warning, or if every line is wanted."""
        match = _PROGRESS.match(text)
        with self._lock:
            running = self._state.running.get(stage) if self._state else None
            if running is not None:
                running.text = text
                if match and int(match["total"]):
                    self._read_progress(running, match)
        if self.verbose or _NOTICE.search(text):
            self._print(f"{stage:<20} {text}")

    def _read_progress(self, running: _Running, match: re.Match[str]) -> None:
        share = min(1.0, int(match["done"]) / int(match["total"]))
        if match["label"] != running.label or running.share is None or share < running.share:  # another count begins
            running.label, running.share_since, running.share_start = match["label"], time.monotonic(), share
        running.share, running.text = share, match["note"] or match["label"]

    def _end(self, run: StageRun) -> None:
        """Replace the row of the stage by a line with its duration."""
        with self._lock:
            if self._state is not None:
                self._state.running.pop(run.name, None)
                if run.ok:
                    self._state.done.add(run.name)
            if self._bar is not None and run.name in self._rows:
                self._bar.remove_task(self._rows.pop(run.name))
            left = self._state.left() if self._state is not None and run.ok else 0.0
        rest = f"   (about {format_seconds(left)} left)" if left >= 1 and self._bar is None else ""
        self._print(f"{run.name:<20} {'done in' if run.ok else 'failed after'} {format_seconds(run.seconds)}{rest}")

    def _skip(self, stage: str) -> None:
        """Count a stage that is up to date."""
        with self._lock:
            if self._state is not None:
                self._state.done.add(stage)

    def _print(self, text: str) -> None:
        with self._lock:
            self._last_print = time.monotonic()
            if self._bar is not None:
                self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
            else:
                say(text)

    def _tick(self) -> None:
        """Keep bars and times current until the display is closed."""
        while not self._stop.wait(_REFRESH_EVERY_S):
            with self._lock:
                if self._state is None:
                    continue
                if self._bar is not None:
                    self._update_bars(self._bar, self._state)
                elif time.monotonic() - self._last_print >= LINE_EVERY_S and self._state.running:
                    self._print(_one_line(self._state))

    def _update_bars(self, bar: Progress, state: RunState) -> None:
        now, left = time.monotonic(), state.left()
        assert self._total is not None, "begin adds it together with the bar"
        share = (now - self._began) / max(1e-3, now - self._began + left)
        bar.update(self._total, completed=share, note=f"about {format_seconds(left)} left")
        for stage, running in state.running.items():
            elapsed, left_here = now - running.start, state.left_in(stage)
            note = running.text if len(running.text) <= 50 else f"{running.text[:49]}…"
            bar.update(self._rows[stage], completed=elapsed / max(1e-3, elapsed + left_here), note=note)


def _one_line(state: RunState) -> str:
    """Describe the stages that run, in one line."""
    parts = []
    for stage, running in state.running.items():
        percent = f": {running.label} {running.share:.0%}" if running.share is not None else ""
        parts.append(f"{stage} runs for {format_seconds(time.monotonic() - running.start)}{percent}")
    return f"{', '.join(parts)}   (about {format_seconds(state.left())} left)"


def _progress_bars() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<20}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4)

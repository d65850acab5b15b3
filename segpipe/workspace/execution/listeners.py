"""Listeners of a run: objects that are called when a stage starts, prints a line or ends."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from segpipe.workspace.execution.runner import StageRun

KEPT_LOGS = 20
"""Number of log files that a workspace keeps; the oldest ones are deleted."""


class Listener(Protocol):
    """Is called by a run. Several threads call it, so it must be thread-safe."""

    def on_message(self, text: str) -> None:
        """Receive a line about the run as a whole."""

    def on_start(self, stage: str) -> None:
        """A stage starts."""

    def on_line(self, stage: str, text: str) -> None:
        """Receive a line that a running stage printed."""

    def on_end(self, run: StageRun) -> None:
        """A stage ended, successfully or not."""

    def on_skip(self, stage: str) -> None:
        """A stage is up to date and does not run."""


@dataclass(frozen=True)
class Listeners:
    """Calls each of several listeners."""

    members: Sequence[Listener]

    def on_message(self, text: str) -> None:  # noqa: D102 - see Listener
        for member in self.members:
            member.on_message(text)

    def on_start(self, stage: str) -> None:  # noqa: D102
        for member in self.members:
            member.on_start(stage)

    def on_line(self, stage: str, text: str) -> None:  # noqa: D102
        for member in self.members:
            member.on_line(stage, text)

    def on_end(self, run: StageRun) -> None:  # noqa: D102
        for member in self.members:
            member.on_end(run)

    def on_skip(self, stage: str) -> None:  # noqa: D102
        for member in self.members:
            member.on_skip(stage)


class LogFile:
    """Writes everything that happens in a run to a file. The file is made when the first stage starts.

    Args:
        folder: the folder of all log files.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / time.strftime("run-%Y%m%d-%H%M%S.log")
        self._lock = threading.Lock()
        self._before_first_stage: list[str] | None = []

    def on_message(self, text: str) -> None:
        """Write a line about the run as a whole."""
        self._write("", text)

    def on_start(self, stage: str) -> None:
        """Write that a stage starts."""
        with self._lock:
            if self._before_first_stage is not None:
                self._make_file(self._before_first_stage)
                self._before_first_stage = None
        self._write(stage, "started")

    def on_line(self, stage: str, text: str) -> None:
        """Write a line of a stage."""
        self._write(stage, text)

    def on_end(self, run: StageRun) -> None:
        """Write how a stage ended."""
        self._write(run.name, f"done in {run.seconds:.1f} s" if run.ok else f"failed: {run.error}")

    def on_skip(self, stage: str) -> None:
        """Write that a stage is up to date."""
        self._write(stage, "up to date")

    def _make_file(self, lines: list[str]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for old in sorted(self.path.parent.glob("run-*.log"))[: -KEPT_LOGS + 1]:
            old.unlink(missing_ok=True)
        self.path.write_text("".join(lines))

    def _write(self, stage: str, text: str) -> None:
        line = f"{time.strftime('%H:%M:%S')}  {stage:<20} {text}".rstrip() + "\n"
        with self._lock:
            if self._before_first_stage is not None:
                self._before_first_stage.append(line)
                return
            with self.path.open("a") as file:
                file.write(line)


@dataclass(frozen=True)
class StageStart:
    """The start of a stage. output: its lines as they come, then its result."""

    stage: str
    output: queue.SimpleQueue[str | StageRun] = field(default_factory=queue.SimpleQueue)


class Recorder:
    """Keeps the events of a run for a reader that may come later, such as a Prefect flow.

    `events` holds messages, starts of stages, and None once `close` was called.
    """

    def __init__(self) -> None:
        self.events: queue.SimpleQueue[str | StageStart | None] = queue.SimpleQueue()
        self._outputs: dict[str, queue.SimpleQueue[str | StageRun]] = {}

    def on_message(self, text: str) -> None:
        """Keep a line about the run as a whole."""
        self.events.put(text)

    def on_start(self, stage: str) -> None:
        """Keep the start of a stage."""
        start = StageStart(stage)
        self._outputs[stage] = start.output
        self.events.put(start)

    def on_line(self, stage: str, text: str) -> None:
        """Keep a line of a stage."""
        self._outputs[stage].put(text)

    def on_end(self, run: StageRun) -> None:
        """Keep the result of a stage."""
        self._outputs[run.name].put(run)

    def on_skip(self, stage: str) -> None:
        """Do nothing: stages that are up to date are not events."""

    def close(self) -> None:
        """Mark the end of the events."""
        self.events.put(None)

"""The events of a run, and two listeners: one writes a log file, one keeps the events for a Prefect flow.

A listener is called with each event, from several threads, so it must be thread-safe.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from segpipe.workspace.execution.runner import StageRun

KEPT_LOGS = 20
"""Number of log files that a workspace keeps; the oldest ones are deleted."""


@dataclass(frozen=True)
class Message:
    """A line about the run as a whole."""

    text: str


@dataclass(frozen=True)
class StageStarted:
    """A stage starts."""

    stage: str


@dataclass(frozen=True)
class StageLine:
    """A running stage has printed a line."""

    stage: str
    text: str


@dataclass(frozen=True)
class StageEnded:
    """A stage has ended, successfully or not."""

    run: StageRun


@dataclass(frozen=True)
class StageSkipped:
    """A stage is up to date and does not run."""

    stage: str


Event = Message | StageStarted | StageLine | StageEnded | StageSkipped
Listener = Callable[[Event], None]


class LogFile:
    """Writes all events of a run to a file. The file is made when the first stage starts.

    Args:
        folder: the folder of all log files.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / time.strftime("run-%Y%m%d-%H%M%S.log")
        self._lock = threading.Lock()
        self._lines_before_first_stage: list[str] | None = []

    def __call__(self, event: Event) -> None:
        """Write an event as one line with its time."""
        stage, text = _describe(event)
        line = f"{time.strftime('%H:%M:%S')}  {stage:<20} {text}".rstrip() + "\n"
        with self._lock:
            if isinstance(event, StageStarted) and self._lines_before_first_stage is not None:
                self._make_file(self._lines_before_first_stage)
                self._lines_before_first_stage = None
            if self._lines_before_first_stage is not None:
                self._lines_before_first_stage.append(line)
                return
            with self.path.open("a") as file:
                file.write(line)

    def _make_file(self, lines: list[str]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for old in sorted(self.path.parent.glob("run-*.log"))[: -KEPT_LOGS + 1]:
            old.unlink(missing_ok=True)
        self.path.write_text("".join(lines))


def _describe(event: Event) -> tuple[str, str]:
    """Return the stage of an event ("" if it has none), and the event in words."""
    match event:
        case Message(text):
            return "", text
        case StageStarted(stage):
            return stage, "started"
        case StageLine(stage, text):
            return stage, text
        case StageEnded(run):
            return run.name, f"done in {run.seconds:.1f} s" if run.ok else f"failed: {run.error}"
        case StageSkipped(stage):
            return stage, "up to date"


def notify_all(listeners: Iterable[Listener], event: Event) -> None:
    """Call each listener with an event, also after one has failed. The first error is raised at the end."""
    errors: list[Exception] = []
    for listener in listeners:
        try:
            listener(event)
        except Exception as error:  # noqa: BLE001  # such as a full disk, or a closed terminal; raised below
            errors.append(error)
    if errors:
        raise errors[0]


@dataclass(frozen=True)
class RecordedStage:
    """A stage that has started. output: its lines as they come, then its result."""

    name: str
    output: queue.SimpleQueue[str | StageRun] = field(default_factory=queue.SimpleQueue)


class Recorder:
    """Keeps the events of a run for a reader that may come later, such as a Prefect flow.

    Attributes:
        entries: messages and stages in the order of their start, then None after `close`.
    """

    def __init__(self) -> None:
        self.entries: queue.SimpleQueue[str | RecordedStage | None] = queue.SimpleQueue()
        self._outputs: dict[str, queue.SimpleQueue[str | StageRun]] = {}

    def __call__(self, event: Event) -> None:
        """Keep an event. Stages that are up to date are not kept."""
        match event:
            case Message(text):
                self.entries.put(text)
            case StageStarted(name):
                stage = RecordedStage(name)
                self._outputs[name] = stage.output
                self.entries.put(stage)
            case StageLine(name, text):
                self._outputs[name].put(text)
            case StageEnded(run):
                self._outputs.pop(run.name).put(run)

    def close(self) -> None:
        """Mark the end of the entries, and of the stages whose end was not reported, so that no reader waits for it."""
        for name, output in self._outputs.items():
            output.put(StageRun(name, 1, 0.0, f"{name}: its end was not reported"))
        self.entries.put(None)

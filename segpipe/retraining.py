"""A run of the whole pipeline: the stages that are out of date run, then the winner is released.

`segpipe run`, `segpipe demo` and the flow `retrain` share this module. It works without Prefect: the stages start before Prefect is
imported, and a run that has nothing to do does not need it at all. The flow records what happens.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from segpipe.config import Params, load_params, parse_budget
from segpipe.errors import ConfigError, SegpipeError
from segpipe.progress import say
from segpipe.release.run_summary import RunSummary
from segpipe.signals import ignore_interrupts, interrupt_on_termination
from segpipe.workspace import pipeline
from segpipe.workspace.execution.display import RunDisplay, RunState
from segpipe.workspace.execution.estimates import (
    TYPICAL_CLASSICAL_S,
    expected_seconds,
    read_durations,
    record_durations,
)
from segpipe.workspace.execution.events import Event, Listener, LogFile, Message, Recorder, StageEnded, notify_all
from segpipe.workspace.execution.runner import StageRun
from segpipe.workspace.execution.scheduler import device_slots, max_parallel, run_stages
from segpipe.workspace.flow_loader import load_flow
from segpipe.workspace.lock import lock
from segpipe.workspace.paths import Paths
from segpipe.workspace.pipeline import Stage
from segpipe.workspace.root import check_repository, find_root


@dataclass
class PipelineRun:
    """A run of the pipeline of a locked workspace; its stages run in the background.

    root: the workspace. stages: the graph. to_run: the stages that are out of date and those after them. promote: "auto" or "manual".
    began: value of `time.monotonic` at the beginning. stop_event: stops the stages.
    """

    root: Path
    params: Params
    stages: Mapping[str, Stage]
    to_run: set[str]
    jobs: int | None
    promote: str
    began: float
    stop_event: threading.Event
    _result: Future[dict[str, StageRun | None]] | None = None

    def start(self, listener: Listener, recorder: Recorder | None) -> None:
        """Start the stages that are out of date in a background thread."""
        if not self.to_run:
            if recorder:
                recorder.close()
            return
        pool = ThreadPoolExecutor(max_workers=1)
        self._result = pool.submit(run_stages, self.root, self.stages, self.jobs, listener, self.stop_event)
        if recorder:
            self._result.add_done_callback(lambda _: recorder.close())
        pool.shutdown(wait=False)

    def stop(self) -> None:
        """Stop the stages that run, and wait for their end."""
        self.stop_event.set()
        if self._result is not None:
            with ignore_interrupts():
                self._result.exception()

    def wait(self) -> RunSummary:
        """Wait for the stages.

        Returns:
            The summary of the run, without the release.

        Raises:
            StageFailed: a stage failed.
        """
        runs = self._result.result() if self._result else dict.fromkeys(self.stages)
        seconds = {name: round(run.seconds, 2) for name, run in runs.items() if run}
        up_to_date = [name for name, run in runs.items() if not run]
        return RunSummary(root=str(self.root), ran=seconds, up_to_date=up_to_date)

    def seconds(self) -> float:
        """Return the seconds since the run began."""
        return round(time.monotonic() - self.began, 2)

    def summary_if_complete(self) -> RunSummary | None:
        """Return the summary of a run that has nothing to do; None if there are stages to run, or a winner to release or promote."""
        from segpipe.release.winner import complete_summary, decide_release

        if self.to_run:
            return None
        summary = self.wait()
        if "export" in self.stages:
            stage = self.params.release.stage
            decision = decide_release(self.root, stage, self.promote)
            if not decision.nothing_to_do:
                return None
            complete_summary(self.root, stage, decision, summary)
        summary.seconds = self.seconds()
        return summary


@contextlib.contextmanager
def open_run(
    root: Path,
    jobs: int | None = None,
    promote: str | None = None,
    display: RunDisplay | None = None,
    recorder: Recorder | None = None,
    stop_event: threading.Event | None = None,
) -> Iterator[PipelineRun]:
    """Lock a workspace, bring data.dvc and the champion up to date, and start the stages that are out of date.

    When the block ends, the stages that still run are stopped, and the lock is released.

    Args:
        root: the workspace, or a folder in it.
        jobs: largest number of stages at once; by default one `device` stage per GPU, and as many others as processors.
        promote: "auto" or "manual"; None: release.promote of params.yaml.
        display: shows the run.
        recorder: keeps what happens, for the flow.
        stop_event: stops the stages when it is set.

    Yields:
        The run.

    Raises:
        ConfigError: there is no workspace, or a setting is wrong.
        BusyError: another run uses the workspace.
        MissingError: the data are missing, and cannot be fetched.
    """
    began = time.monotonic()
    if jobs is not None and jobs < 1:  # the scheduler would wait forever for a free slot
        raise ConfigError("too few stages at once", where="jobs", found=jobs, expected="at least 1", fix="correct it")
    folder = find_root(root)
    check_repository(folder)
    with lock(folder):
        params = load_params(folder)
        log = LogFile(Paths(folder).logs)
        listeners = [listener for listener in (log, display, recorder) if listener is not None]

        def notify(event: Event) -> None:
            if isinstance(event, StageEnded) and event.run.ok:
                record_durations(Paths(folder).durations, {event.run.name: event.run.seconds})
            notify_all(listeners, event)

        _update_data(folder, notify)
        stages = pipeline.graph(folder)
        stale = _stale_stages(folder, stages, notify)
        to_run = {name for name in stages if name in stale or stale.keys() & pipeline.ancestors(stages, name)}
        run = PipelineRun(
            folder,
            params,
            stages,
            to_run,
            jobs,
            promote or params.release.promote,
            began,
            stop_event or threading.Event(),
        )
        for name, reason in stale.items():
            log(Message(f"{name} is out of date: {reason}"))
        if to_run and display:
            display.begin(_state(run))
        try:
            run.start(notify, recorder)
            yield run
        finally:
            run.stop()


def _update_data(root: Path, listener: Listener) -> None:
    """Make data/ and data.dvc agree: fetch missing data, or version data that are new or have changed."""
    state = pipeline.data_state(root)
    if state == "missing":
        listener(Message("the data of data.dvc are missing: fetching them"))
        pipeline.pull_data(root)
    elif state != "clean":
        listener(Message("data/ is new or has changed: adding it to DVC"))
        pipeline.add_data(root)


def _stale_stages(root: Path, stages: Mapping[str, Stage], listener: Listener) -> dict[str, str]:
    """Return the stages that are out of date, with the reason. If `select` will run, the champion is brought up to date first."""
    stale = pipeline.stale(root)
    if "select" not in stages or not stale.keys() & ({"select"} | pipeline.ancestors(stages, "select")):
        return stale
    from segpipe.release.champion_file import ChampionFile, refresh_champion

    if not refresh_champion(root):
        return stale
    listener(Message(f"the champion is {ChampionFile.read(Paths(root).champion).version or 'none'}"))
    return pipeline.stale(root)


def _state(run: PipelineRun) -> RunState:
    """Return what the display needs to estimate the time that is left."""
    budgets, classical = _trainings(run.params)
    durations = dict.fromkeys(classical, TYPICAL_CLASSICAL_S) | read_durations(Paths(run.root).durations)
    parallel = max_parallel(run.jobs)
    expected = expected_seconds(run.stages, budgets, durations)
    return RunState(run.stages, expected, len(device_slots(run.jobs)), parallel, done=run.stages.keys() - run.to_run)


def _trainings(params: Params) -> tuple[dict[str, float], list[str]]:
    """Return the seconds that the training of each network may take, by stage, and the stages that train classical models."""
    from segpipe.models.registry import get_family

    budgets: dict[str, float] = {}
    classical: list[str] = []
    for name, candidate in params.candidates.items():
        unit, amount = parse_budget(params.train_for(name).budget)
        try:
            kind = get_family(candidate.family).kind
        except SegpipeError:  # the stage `plan` reports an unknown family
            continue
        if kind == "classical":
            classical.append(f"train@{name}")
        elif unit == "seconds":
            budgets[f"train@{name}"] = amount
    return budgets, classical


def run_pipeline(
    root: Path,
    jobs: int | None = None,
    promote: str | None = None,
    verbose: bool = False,
    flow: ModuleType | None = None,
) -> RunSummary:
    """Run the pipeline in this process, as `segpipe run` does, and record the run in Prefect if there was something to do.

    A run that has nothing to do is recorded only if PREFECT_API_URL names a Prefect server.

    Args:
        root: the workspace, or a folder in it.
        jobs: largest number of stages at once; by default one `device` stage per GPU, and as many others as processors.
        promote: "auto" or "manual"; None: release.promote of params.yaml.
        verbose: print every line of every stage.
        flow: the module of the flow; by default flows/retrain.py of the workspace.

    Returns:
        The summary of the run.

    Raises:
        SegpipeError: what ended the run.
        KeyboardInterrupt: the user ended it; the stages have been stopped.
    """
    recorder, interrupted, stop_event = Recorder(), threading.Event(), threading.Event()
    with interrupt_on_termination(interrupted, stop_event):
        try:
            with (
                RunDisplay(verbose) as display,
                open_run(root, jobs, promote, display, recorder, stop_event) as run,
            ):
                if "PREFECT_API_URL" not in os.environ and (summary := run.summary_if_complete()):
                    return summary
                module = flow or load_flow(run.root, "retrain")
                return module.record(run, recorder, display)
        except (KeyboardInterrupt, Exception) as error:
            # An interrupt within a library may come out as an error of that library: pydantic does so while Prefect is imported.
            if not interrupted.is_set():
                raise
            say("stopped; completed work is kept, and the same command continues from there")
            raise KeyboardInterrupt from error

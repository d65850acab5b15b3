"""Retrain: whatever is stale in dvc.yaml, then release and promote a winner that passed its gates.

Tasks are derived from DVC's graph; what a stage does is not known here. Runs as `segpipe run`, as `python flows/retrain.py`,
and as the deployment of prefect.yaml.
"""
# No `from __future__ import annotations` where a flow is: a scheduled run gets the flow pickled by value, and Prefect then could
# not tell what the names in its annotations mean.

import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from segpipe.config import load_params
from segpipe.errors import SegpipeError
from segpipe.gates.selection import Selection
from segpipe.progress import format_seconds, say
from segpipe.release.champion_file import ChampionFile
from segpipe.release.run_summary import RunSummary
from segpipe.signals import ignore_interrupts, interrupt_on_termination
from segpipe.workspace import pipeline, runner
from segpipe.workspace.lock import lock
from segpipe.workspace.pipeline import Stage
from segpipe.workspace.prefect_settings import prefect_environment
from segpipe.workspace.root import check_repository, find_root
from segpipe.workspace.runner import StageRun

if "prefect" not in sys.modules:  # Prefect reads its environment once, when it is imported
    os.environ.update(prefect_environment(Path.cwd(), quiet=True))

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Failed, State
from prefect.task_runners import ThreadPoolTaskRunner

MAX_STAGES = 32
"""Threads that wait for stages; how many stages run at once is decided by devices and `jobs`."""

_ECHO = threading.Event()
"""Set where a person watches: lines then go to stderr as they are, beside Prefect's own log."""


class StageFailed(SegpipeError):
    """A stage ended with an error; carries its line and its exit code as they are."""

    def __init__(self, run: StageRun) -> None:
        super().__init__(run.error or f"stage {run.name} failed")
        self.exit_code = run.code


def tell(text: str, label: str = "") -> None:
    """A line of the flow for whoever watches: Prefect's log of this run, and the terminal."""
    get_run_logger().info(f"{label}: {text}" if label else text)
    echo(text, label)


def echo(text: str, label: str) -> None:
    """A line for the terminal alone."""
    if _ECHO.is_set():
        say(f"{label:<20} {text}" if label else text)


@flow(name="retrain", task_runner=ThreadPoolTaskRunner(max_workers=MAX_STAGES), persist_result=False)  # type: ignore[arg-type]
def retrain(
    root: str = ".", jobs: int | None = None, promote: Literal["auto", "manual"] | None = None
) -> RunSummary | State[Any]:
    """Bring a workspace up to date and release what its gates let through.

    root: the workspace, or a folder in it. jobs: stages at once; by default one a device, others as many as there are
    processors. promote: overrides `release.promote` of params.yaml.

    Returns what happened.
    """
    try:
        folder = find_root(Path(root))
        check_repository(folder)
        with lock(folder):
            return _retrain(folder, jobs, promote)
    except SegpipeError as error:  # a state, not a raise: the user needs the line, not a traceback
        return Failed(message=str(error), data=error)


def _retrain(root: Path, jobs: int | None, promote: str | None) -> RunSummary:
    began = time.monotonic()
    params = load_params(root)
    bring_data(root)
    stages = pipeline.graph(root)
    stale = pipeline.stale(root)
    for name, reason in stale.items():
        get_run_logger().info(f"{name} is stale: {reason}")
    if "select" in stages and stale.keys() & pipeline.ancestors(stages, "select"):
        _refresh_champion(root)
        stale = pipeline.stale(root)
    runs = run_stages(root, stages, jobs) if stale else dict.fromkeys(stages)
    summary = RunSummary(
        root=str(root),
        ran={name: round(run.seconds, 2) for name, run in runs.items() if run},
        up_to_date=[name for name, run in runs.items() if not run],
    )
    if "export" in stages:
        release_winner(root, params.release.stage, promote or params.release.promote, summary)
        publish(summary)
    summary.seconds = round(time.monotonic() - began, 2)
    return summary


# --- steps: side effects that are no DVC stage -----------------------------------------------------------------------------


@task(cache_policy=NO_CACHE, persist_result=False)
def _step(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return function(*arguments)
    except SegpipeError as error:
        return Failed(message=str(error), data=error)


def step(label: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function as a Prefect task of this name; its error is raised here."""
    state = _step.with_options(task_run_name=label)(function, arguments, return_state=True)
    result = state.result(raise_on_failure=False)
    if isinstance(result, BaseException):
        raise result
    return result


def bring_data(root: Path) -> None:
    """See to it that data/ is there and that data.dvc names what is in it."""
    state = pipeline.data_state(root)
    if state == "missing":
        tell("data.dvc names data that are not here: bringing them")
        step("data", pipeline.pull_data, root)
    elif state != "clean":
        tell("data/ is new or has changed: DVC takes it in")
        step("data", pipeline.add_data, root)


def _refresh_champion(root: Path) -> None:
    from segpipe.release.champion_file import refresh_champion

    if step("champion", refresh_champion, root):
        tell(f"the champion to beat is {ChampionFile.read(root / 'champion.json').version or 'nobody'}")


def release_winner(root: Path, stage: str, promote: str, summary: RunSummary) -> None:
    """Bento -> bless -> commit and tags -> promote, as far as gates and settings allow, and only what is not done yet.

    Fills the fields of the summary from `selection` on.
    """
    from segpipe.gates.waivers import today
    from segpipe.release import registry
    from segpipe.workspace.paths import Paths

    paths = Paths(root)
    selection = summary.selection = Selection.read(paths.selection, paths.bundle)
    if not selection.promotable_on(today()):
        summary.blocked, summary.live = selection.outcome_on(today()), registry.live(root, stage)
        return
    version = registry.version_of_bundle(root, root / "bundle")
    if version is None:
        version = registry.next_version(root)
        _release(root, version)
        summary.released = True
    if promote == "auto" and not registry.was_in(root, version, stage):  # what was rolled back stays back
        step("promote", registry.promote, root, version, stage)
        tell(f"{version} is live in {stage}")
        summary.promoted = True
    summary.version, summary.live = version, registry.live(root, stage)


def _release(root: Path, version: str) -> None:
    from segpipe.release import registry
    from segpipe.release.bento import build_bento
    from segpipe.release.blessing import bless

    tell(f"{version}: packaging")
    bento = step("bento", build_bento, root, version)
    tell(f"{version}: serving it once, replaying its golden images")
    report = step("bless", bless, bento, root / "bundle")
    step("release", registry.release, root, version, report, bento)
    tell(f"{version}: committed and tagged")


def publish(summary: RunSummary) -> None:
    """Prefect artifacts: the scores as a table, the verdicts as text."""
    selection = summary.selection
    assert selection is not None, "release_winner reads it"
    rows = [{"candidate": row.candidate, "family": row.family, "val": row.val, **row.test} for row in selection.ranking]
    create_table_artifact(rows, key="scores", description="Candidates on the test split, best first")
    verdicts = [f"- **{verdict.name}**: {verdict.sentence}" for verdict in selection.verdicts]
    outcome = f"Live: {summary.live or 'nothing'}; this run's version: {summary.version or 'none'}"
    create_markdown_artifact("\n".join(["# Verdicts", "", *verdicts, "", outcome]), key="verdicts")


# --- stages: the scheduler over DVC's graph --------------------------------------------------------------------------------


@task(cache_policy=NO_CACHE, persist_result=False)
def run_stage(root: Path, name: str, environment: Mapping[str, str], stop: threading.Event) -> StageRun | State[Any]:
    """One DVC stage in a process group of its own, its output in this task's log."""
    logger = get_run_logger()

    def on_line(line: str) -> None:
        logger.info(line)
        echo(line, name)

    run = runner.run_stage(root, name, on_line, stop=stop, environment=environment)
    return run if run.ok else Failed(message=run.error, data=run)


def run_stages(root: Path, stages: Mapping[str, Stage], jobs: int | None) -> dict[str, StageRun | None]:
    """Run what is stale, each stage once its upstream is done; None for a stage that was up to date.

    A stage is asked whether it is stale only then: an upstream that ran again and wrote the same bytes leaves it fresh.
    """
    slots = device_slots(jobs)
    at_once = jobs or os.cpu_count() or 1
    done: dict[str, StageRun | None] = {}
    running: dict[str, str | None] = {}  # stage -> the device slot it holds
    ended: queue.Queue[tuple[str, StageRun]] = queue.Queue()
    stop = threading.Event()
    try:
        while len(done) < len(stages):
            for stage in _ready(stages, done, running):
                if len(running) >= at_once or (stage.resource == "device" and not slots):
                    continue
                if not pipeline.is_stale(root, stage.name):
                    done[stage.name] = None
                    break  # others may be ready now
                slot = slots.pop(0) if stage.resource == "device" else None
                running[stage.name] = slot
                tell("started", stage.name)
                _submit(root, stage, slot, stop, ended)
            else:
                name, run = ended.get()
                if (slot := running.pop(name)) is not None:
                    slots.append(slot)
                if not run.ok:
                    raise StageFailed(run)
                tell(f"done in {format_seconds(run.seconds)}", name)
                done[name] = run
    finally:
        with ignore_interrupts():
            stop.set()
            for _ in running:
                ended.get()
    return {name: done[name] for name in stages}


def _ready(stages: Mapping[str, Stage], done: Mapping[str, Any], running: Mapping[str, Any]) -> list[Stage]:
    waiting = [stage for name, stage in stages.items() if name not in done and name not in running]
    return [stage for stage in waiting if all(name in done for name in stage.upstream if name in stages)]


def _submit(
    root: Path, stage: Stage, slot: str | None, stop: threading.Event, ended: queue.Queue[tuple[str, StageRun]]
) -> None:
    environment = {"CUDA_VISIBLE_DEVICES": slot} if slot else {}
    future = run_stage.with_options(task_run_name=stage.name).submit(root, stage.name, environment, stop)

    def report(finished: PrefectFuture[Any]) -> None:
        result = finished.result(raise_on_failure=False)
        ended.put((stage.name, result if isinstance(result, StageRun) else StageRun(stage.name, 1, 0.0, repr(result))))

    future.add_done_callback(report)


def device_slots(jobs: int | None) -> list[str]:
    """A slot for each `device` stage that may run at once: the GPU's number, or "" for the processors."""
    from segpipe.workspace.devices import gpus

    devices = gpus() or [""]
    return devices if jobs is None else [devices[i % len(devices)] for i in range(jobs)]


# --- ways to start it ------------------------------------------------------------------------------------------------------


def run(root: Path, jobs: int | None = None, promote: Literal["auto", "manual"] | None = None) -> RunSummary:
    """The flow as `segpipe run` starts it: in this process, its lines on stderr. Raises the error that ended it."""
    _ECHO.set()
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}), interrupt_on_termination():  # type: ignore[arg-type]
        try:
            return retrain(str(root), jobs, promote)  # type: ignore[return-value]
        except KeyboardInterrupt:
            say("stopped: what was done stays, and the same command goes on from there")
            raise


def main() -> None:
    """`python flows/retrain.py [ROOT]`: the same as `segpipe run`."""
    from segpipe.outcome import report_errors

    with report_errors():
        run(Path(sys.argv[1] if len(sys.argv) > 1 else ".")).check_released()


if __name__ == "__main__":
    main()

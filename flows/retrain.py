"""Retrain: run the stages of dvc.yaml that are out of date, then release and promote a winner that passes its gates.

The tasks are derived from DVC's graph; this module does not know what a stage does. It runs as `segpipe run`, as
`python flows/retrain.py`, and as the deployment of prefect.yaml.
"""
# A module with a flow must not use `from __future__ import annotations`: a scheduled run gets the flow pickled by value, and then
# Prefect cannot resolve the names in its annotations.

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
from segpipe.workspace.paths import Paths
from segpipe.workspace.pipeline import Stage
from segpipe.workspace.prefect_settings import prefect_environment
from segpipe.workspace.root import check_repository, find_root
from segpipe.workspace.runner import StageRun

if "prefect" not in sys.modules:  # Prefect reads its environment only when it is imported
    os.environ.update(prefect_environment(Path.cwd(), quiet=True))

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Failed, State
from prefect.task_runners import ThreadPoolTaskRunner

MAX_STAGES = 32
"""Number of threads that wait for stages. Devices and `jobs` decide how many stages run at once."""

_ECHO = threading.Event()
"""Set by `run`: the lines of the flow then also go to stderr, in addition to Prefect's log."""


class StageFailed(SegpipeError):
    """A stage ended with an error. Has the error line and the exit code of the stage."""

    def __init__(self, run: StageRun) -> None:
        super().__init__(run.error or f"stage {run.name} failed")
        self.exit_code = run.code


def report(text: str, label: str = "") -> None:
    """Write a line to Prefect's log of this run, and to the terminal."""
    get_run_logger().info(f"{label}: {text}" if label else text)
    echo(text, label)


def echo(text: str, label: str) -> None:
    """Write a line to the terminal only."""
    if _ECHO.is_set():
        say(f"{label:<20} {text}" if label else text)


@flow(name="retrain", task_runner=ThreadPoolTaskRunner(max_workers=MAX_STAGES), persist_result=False)  # type: ignore[arg-type]
def retrain(
    root: str = ".", jobs: int | None = None, promote: Literal["auto", "manual"] | None = None
) -> RunSummary | State[Any]:
    """Bring a workspace up to date, and release the winner if it passes its gates.

    Args:
        root: the workspace, or a folder in it.
        jobs: largest number of stages at once; by default one `device` stage per GPU, and as many others as processors.
        promote: overrides release.promote of params.yaml.

    Returns:
        The summary of the run, or a failed state with the error.
    """
    try:
        folder = find_root(Path(root))
        check_repository(folder)
        with lock(folder):
            return _retrain(folder, jobs, promote)
    except (
        SegpipeError
    ) as error:  # a failed state instead of an exception: the user needs the error line, not a traceback
        return Failed(message=str(error), data=error)


def _retrain(root: Path, jobs: int | None, promote: str | None) -> RunSummary:
    start = time.monotonic()
    params = load_params(root)
    update_data(root)
    stages = pipeline.graph(root)
    stale = pipeline.stale(root)
    for name, reason in stale.items():
        get_run_logger().info(f"{name} is out of date: {reason}")
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
        create_artifacts(summary)
    summary.seconds = round(time.monotonic() - start, 2)
    return summary


# --- steps: side effects that are not DVC stages ---------------------------------------------------------------------------


@task(cache_policy=NO_CACHE, persist_result=False)
def _step(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return function(*arguments)
    except SegpipeError as error:
        return Failed(message=str(error), data=error)


def run_step(label: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function as a Prefect task, and return its result. Its error is raised here."""
    state = _step.with_options(task_run_name=label)(function, arguments, return_state=True)
    result = state.result(raise_on_failure=False)
    if isinstance(result, BaseException):
        raise result
    return result


def update_data(root: Path) -> None:
    """Make data/ and data.dvc agree: fetch missing data, or version data that are new or have changed."""
    state = pipeline.data_state(root)
    if state == "missing":
        report("the data of data.dvc are missing: fetching them")
        run_step("data", pipeline.pull_data, root)
    elif state != "clean":
        report("data/ is new or has changed: adding it to DVC")
        run_step("data", pipeline.add_data, root)


def _refresh_champion(root: Path) -> None:
    from segpipe.release.champion_file import refresh_champion

    if run_step("champion", refresh_champion, root):
        report(f"the champion is {ChampionFile.read(Paths(root).champion).version or 'none'}")


def release_winner(root: Path, stage: str, promote: str, summary: RunSummary) -> None:
    """Release and promote the winner, as far as gates and settings allow; completed steps are skipped. Complete the summary."""
    from segpipe.gates.waivers import today
    from segpipe.release import registry

    paths = Paths(root)
    selection = summary.selection = Selection.read(paths.selection, paths.bundle)
    if not selection.promotable_on(today()):
        summary.blocked, summary.live = selection.outcome_on(today()), registry.live(root, stage)
        return
    version = registry.version_of_bundle(root, paths.bundle)
    if version is None:
        version = registry.next_version(root)
        _release(root, version)
        summary.released = True
    if promote == "auto" and not registry.was_in(
        root, version, stage
    ):  # a version that was rolled back is not promoted again
        run_step("promote", registry.promote, root, version, stage)
        report(f"{version} is live in {stage}")
        summary.promoted = True
    summary.version, summary.live = version, registry.live(root, stage)


def _release(root: Path, version: str) -> None:
    from segpipe.release import registry
    from segpipe.release.bento import build_bento
    from segpipe.release.blessing import bless

    report(f"{version}: building the Bento")
    bento = run_step("bento", build_bento, root, version)
    report(f"{version}: serving it once, to compare its answers with the golden images")
    bless_report = run_step("bless", bless, bento, Paths(root).bundle)
    run_step("release", registry.release, root, version, bless_report, bento)
    report(f"{version}: committed and tagged")


def create_artifacts(summary: RunSummary) -> None:
    """Create Prefect artifacts: the scores as a table, and the verdicts as text."""
    selection = summary.selection
    assert selection is not None, "release_winner reads it"
    rows = [{"candidate": row.candidate, "family": row.family, "val": row.val, **row.test} for row in selection.ranking]
    create_table_artifact(
        rows, key="scores", description="Scores of the candidates on the test split, best candidate first"
    )
    verdicts = [f"- **{verdict.name}**: {verdict.sentence}" for verdict in selection.verdicts]
    outcome = f"Live: {summary.live or 'nothing'}; this run's version: {summary.version or 'none'}"
    create_markdown_artifact("\n".join(["# Verdicts", "", *verdicts, "", outcome]), key="verdicts")


# --- stages: a scheduler for DVC's graph -----------------------------------------------------------------------------------


@task(cache_policy=NO_CACHE, persist_result=False)
def run_stage(root: Path, name: str, environment: Mapping[str, str], stop: threading.Event) -> StageRun | State[Any]:
    """Run a DVC stage in a process group of its own, with its output in this task's log."""
    logger = get_run_logger()

    def on_line(line: str) -> None:
        logger.info(line)
        echo(line, name)

    run = runner.run_stage(root, name, on_line, stop=stop, environment=environment)
    return run if run.ok else Failed(message=run.error, data=run)


def run_stages(root: Path, stages: Mapping[str, Stage], jobs: int | None) -> dict[str, StageRun | None]:
    """Run the stages that are out of date, each as soon as its upstream stages are done.

    A stage is checked only then: it stays up to date if an upstream stage ran again but wrote the same bytes.

    Returns:
        The run of each stage, None for a stage that was up to date.

    Raises:
        StageFailed: a stage failed; the others were stopped.
    """
    slots = device_slots(jobs)
    max_running = jobs or os.cpu_count() or 1
    done: dict[str, StageRun | None] = {}
    running: dict[str, str | None] = {}  # stage -> the device slot that it uses
    ended: queue.Queue[tuple[str, StageRun]] = queue.Queue()
    stop = threading.Event()
    try:
        while len(done) < len(stages):
            for stage in _ready(stages, done, running):
                if len(running) >= max_running or (stage.resource == "device" and not slots):
                    continue
                if not pipeline.is_stale(root, stage.name):
                    done[stage.name] = None
                    break  # other stages may be ready now
                slot = slots.pop(0) if stage.resource == "device" else None
                running[stage.name] = slot
                report("started", stage.name)
                _submit(root, stage, slot, stop, ended)
            else:
                name, run = ended.get()
                if (slot := running.pop(name)) is not None:
                    slots.append(slot)
                if not run.ok:
                    raise StageFailed(run)
                report(f"done in {format_seconds(run.seconds)}", name)
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

    def on_end(finished: PrefectFuture[Any]) -> None:
        result = finished.result(raise_on_failure=False)
        ended.put((stage.name, result if isinstance(result, StageRun) else StageRun(stage.name, 1, 0.0, repr(result))))

    future.add_done_callback(on_end)


def device_slots(jobs: int | None) -> list[str]:
    """Return one slot per `device` stage that may run at once: the number of its GPU, or "" for the processors."""
    from segpipe.workspace.devices import gpus

    devices = gpus() or [""]
    return devices if jobs is None else [devices[i % len(devices)] for i in range(jobs)]


# --- entry points ----------------------------------------------------------------------------------------------------------


def run(root: Path, jobs: int | None = None, promote: Literal["auto", "manual"] | None = None) -> RunSummary:
    """Run the flow as `segpipe run` does: in this process, and print its messages on stderr. Raises the error that ended it."""
    _ECHO.set()
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}), interrupt_on_termination():
        try:
            return retrain(str(root), jobs, promote)  # type: ignore[return-value]
        except KeyboardInterrupt:
            say("stopped; completed work is kept, and the same command continues from there")
            raise


def main() -> None:
    """Run `python flows/retrain.py [ROOT]`, which does the same as `segpipe run`."""
    from segpipe.outcome import report_errors

    with report_errors():
        run(Path(sys.argv[1] if len(sys.argv) > 1 else ".")).check_released()


if __name__ == "__main__":
    main()

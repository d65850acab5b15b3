"""Retrain: run the stages of dvc.yaml that are out of date, then release and promote a winner that passes its gates.

The work is done by `segpipe.retraining`; this flow records it in Prefect: each stage as a task with its output as log, each step of the
release as a task, scores and verdicts as artifacts. It runs as `segpipe run`, as `python flows/retrain.py`, and as the deployment of
prefect.yaml.
"""
# A module with a flow must not use `from __future__ import annotations`: a scheduled run gets the flow pickled by value, and then
# Prefect cannot resolve the names in its annotations.

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from segpipe.errors import MissingError, SegpipeError
from segpipe.release.run_summary import RunSummary
from segpipe.release.winner import release_winner
from segpipe.retraining import PipelineRun, open_run, run_pipeline
from segpipe.workspace.execution.display import RunDisplay
from segpipe.workspace.execution.events import Message, RecordedStage, Recorder
from segpipe.workspace.execution.runner import StageRun
from segpipe.workspace.prefect_settings import prefect_environment

if "prefect" not in sys.modules:  # Prefect reads its environment only when it is imported
    os.environ.update(prefect_environment(Path.cwd(), quiet=True))

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Failed, State
from prefect.task_runners import ThreadPoolTaskRunner

MAX_STAGES = 32
"""Number of threads that record stages. Devices and `jobs` decide how many stages run at once."""

_current: list[tuple[PipelineRun, Recorder, RunDisplay | None]] = []
"""The run that `record` hands to the flow, because a parameter of a flow must be serialisable."""


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
        if _current:
            return _record(*_current.pop())
        recorder = Recorder()
        with open_run(Path(root), jobs, promote, recorder=recorder) as run:
            return _record(run, recorder, None)
    except SegpipeError as error:  # a failed state, not an exception: the user needs the error line, not a traceback
        return Failed(message=str(error), data=error)


def record(run: PipelineRun, recorder: Recorder, display: RunDisplay | None = None) -> RunSummary:
    """Record a run that has started as a run of the flow, and release its winner. Raises the error that ended it."""
    _current[:] = [(run, recorder, display)]
    try:
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            return retrain(str(run.root), run.jobs, run.promote)  # type: ignore[call-overload]
    except Exception as error:
        if not _current:  # the flow has begun, and the error is that of the run
            raise
        server = PREFECT_API_URL.value()
        raise MissingError(
            f"Prefect cannot record the run: {next(iter(str(error).splitlines()), type(error).__name__)}",
            where=f"PREFECT_API_URL={server}" if server else None,
            fix="start this server, or unset PREFECT_API_URL to use one that starts by itself" if server else None,
        ) from error


def _record(run: PipelineRun, recorder: Recorder, display: RunDisplay | None) -> RunSummary:
    tasks = []
    try:
        for entry in iter(recorder.entries.get, None):
            if isinstance(entry, RecordedStage):
                tasks.append(record_stage.with_options(task_run_name=entry.name).submit(entry))
            else:
                get_run_logger().info(entry)
    except BaseException:
        run.stop()  # the tasks wait for the stages, and Prefect waits for the tasks
        raise
    finally:
        for future in tasks:
            future.wait()
    summary = run.wait()
    if "export" in run.stages:
        _release(run, summary, display)
    summary.seconds = run.seconds()
    return summary


def _release(run: PipelineRun, summary: RunSummary, display: RunDisplay | None) -> None:
    def report(text: str) -> None:
        get_run_logger().info(text)
        if display:
            display(Message(text))

    release_winner(run.root, run.params.release.stage, run.promote, summary, run_step, report)
    create_artifacts(summary)


@task(cache_policy=NO_CACHE, persist_result=False)
def record_stage(stage: RecordedStage) -> StageRun | State[Any]:
    """Write the output of a stage to the log of this task until the stage ends, and end as it did."""
    logger = get_run_logger()
    while isinstance(item := stage.output.get(), str):
        logger.info(item)
    return item if item.ok else Failed(message=item.error, data=item)


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


def main() -> None:
    """Run `python flows/retrain.py [ROOT]`, which does the same as `segpipe run`."""
    from segpipe.outcome import report_errors

    with report_errors():
        root = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
        run_pipeline(root, flow=sys.modules[__name__]).check_released()


if __name__ == "__main__":
    main()

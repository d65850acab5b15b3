"""`segpipe run`: run the workspace's retrain flow in this process."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from segpipe.cli.common import Json, print_json, workspace_root

if TYPE_CHECKING:
    from segpipe.release.run_summary import RunSummary

EXAMPLE = "segpipe run\nsegpipe run --promote manual --jobs 2\nsegpipe run --verbose"


class Promote(StrEnum):
    """Values of `segpipe run --promote`."""

    auto = "auto"
    manual = "manual"


_JOBS = (
    "Largest number of stages to run at once, on any device. Default: one stage that needs a device (plan, train, evaluate) per "
    "GPU, and as many other stages as there are processors."
)
_PROMOTE = (
    "auto: make a new release live; manual: leave this to `segpipe promote`. Default: release.promote of params.yaml."
)

_VERBOSE = "Print every line of every stage. In any case they are in the log files in .segpipe/logs."


def run(
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help=_JOBS)] = None,
    promote: Annotated[Promote | None, typer.Option("--promote", help=_PROMOTE)] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help=_VERBOSE)] = False,
    json: Json = False,
) -> None:
    """Run the stages that are out of date, then release and promote the winner if it passes its gates.

    A stage is out of date if its data, code or parameters have changed. A run that was interrupted continues where it stopped.

    Exit codes:
    - 0: all stages are up to date, and the winner is released
    - 4: all stages are up to date, but a gate fails: nothing was released
    - 5: another run is using this workspace
    - 6: there is no winner, or something is missing
    - 7: all stages are up to date, but a gate cannot tell: nothing was released
    - 130: the run was interrupted
    - others: a stage or the release failed; `segpipe --help` lists them
    """
    from segpipe.progress import say
    from segpipe.retraining import run_pipeline

    summary = run_pipeline(workspace_root(), jobs, promote.value if promote else None, verbose)
    if json:
        print_json(summary.model_dump(mode="json"))
    else:
        for line in describe_run(summary):
            say(line)
    summary.check_released()


def describe_run(summary: RunSummary) -> list[str]:
    """Describe the result of a run in a few lines: stages, the verdicts if the gates judged in this run, and the winner."""
    from segpipe.progress import format_seconds

    ran, up_to_date = summary.ran, summary.up_to_date
    words = f"{len(ran)} of {len(ran) + len(up_to_date)} stages ran" if ran else "every stage was up to date"
    lines = [f"{words}, {format_seconds(summary.seconds)} in total"]
    if summary.selection and "select" in ran:
        lines += [verdict.sentence for verdict in summary.selection.verdicts]
    if summary.version and summary.selection:
        released = "released" if summary.released else "already released"
        lines.append(
            f"winner: {summary.selection.winner}, {released} as {summary.version}; live: {summary.live or 'nothing'}"
        )
    return lines

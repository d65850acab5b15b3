"""`segpipe run`: the retrain flow of the workspace, in this process."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from segpipe.cli.common import Json, print_json, workspace_root

if TYPE_CHECKING:
    from segpipe.release.run_summary import RunSummary

EXAMPLE = "segpipe run\nsegpipe run --promote manual --jobs 2"


class Promote(StrEnum):
    """What `segpipe run` does with a winner that passed."""

    auto = "auto"
    manual = "manual"


def run(
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Stages at once, on whatever device. By default one a device.")
    ] = None,
    promote: Annotated[
        Promote | None, typer.Option("--promote", help="Instead of release.promote in params.yaml.")
    ] = None,
    json: Json = False,
) -> None:
    """Redo what changes in data, code or parameters call for; release and promote a winner that passes its gates.

    Exit code 4: everything ran, and the winner is worse than a gate allows; 7: a gate can't tell; others: something broke.
    """
    from segpipe.progress import say
    from segpipe.workspace.flow_loader import load_flow

    root = workspace_root()
    say("starting (Prefect takes some seconds)")
    summary = load_flow(root, "retrain").run(root, jobs, promote.value if promote else None)
    if json:
        print_json(summary.model_dump(mode="json"))
    else:
        for line in describe_run(summary):
            say(line)
    summary.check_released()


def describe_run(summary: RunSummary) -> list[str]:
    """What a run did, in words."""
    from segpipe.progress import format_seconds

    ran, fresh = summary.ran, summary.up_to_date
    words = f"{len(ran)} of {len(ran) + len(fresh)} stages ran" if ran else "every stage was up to date"
    lines = [f"{words}, {format_seconds(summary.seconds)} in all"]
    if summary.version and summary.selection:
        new = "released" if summary.released else "released before"
        lines.append(
            f"winner: {summary.selection.winner}, {new} as {summary.version}; live: {summary.live or 'nothing'}"
        )
    return lines

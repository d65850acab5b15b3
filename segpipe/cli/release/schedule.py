"""`segpipe schedule`: retrain on a schedule."""

from __future__ import annotations

from typing import Annotated

import typer

from segpipe.cli.common import workspace_root

EXAMPLE = 'segpipe schedule --cron "0 2 * * 1"'

_CRON = 'When to run, as a cron expression: minute, hour, day of the month, month, day of the week. "0 2 * * 1" is Monday at 02:00.'


def schedule(
    cron: Annotated[str, typer.Option("--cron", help=_CRON)],
    timezone: Annotated[
        str, typer.Option("--timezone", help="Time zone of the cron expression, such as Europe/Berlin.")
    ] = "UTC",
) -> None:
    """Run `segpipe run` on a schedule, until this command is stopped.

    To use Prefect workers on other machines, deploy prefect.yaml instead: prefect deploy --all.
    """
    from segpipe.workspace.flow_loader import load_flow

    root = workspace_root()
    load_flow(root, "schedule", quiet=False).serve(root, cron, timezone)

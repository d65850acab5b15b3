"""`segpipe schedule`: retraining on a schedule."""

from __future__ import annotations

from typing import Annotated

import typer

from segpipe.cli.common import workspace_root

EXAMPLE = 'segpipe schedule --cron "0 2 * * 1"'


def schedule(
    cron: Annotated[str, typer.Option("--cron", help="Minute, hour, day, month, weekday.")],
    timezone: Annotated[
        str, typer.Option("--timezone", help="In which the expression is meant, such as Europe/Berlin.")
    ] = "UTC",
) -> None:
    """Retrain on a schedule, for as long as this command runs. (A deployment for workers: prefect deploy --all.)"""
    from segpipe.workspace.flow_loader import load_flow

    root = workspace_root()
    load_flow(root, "schedule", quiet=False).serve(root, cron, timezone)

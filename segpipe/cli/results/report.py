"""`segpipe report`: where the report is."""

from __future__ import annotations

from typing import Annotated

import typer

from segpipe.cli.common import workspace_root

EXAMPLE = "segpipe report --open"


def report(open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False) -> None:
    """Where the report is: scores, curves, confusion, verdicts, the best and worst images."""
    from segpipe.errors import MissingError
    from segpipe.workspace.paths import Paths

    path = Paths(workspace_root()).report
    if not path.exists():
        raise MissingError("no report yet", where=path, fix="segpipe run makes it")
    typer.echo(path)
    if open_it:
        typer.launch(path.as_uri())

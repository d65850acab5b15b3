"""`segpipe report`: show the path of the report, or open it."""

from __future__ import annotations

import typer

from segpipe.cli.common import Open, workspace_root

EXAMPLE = "segpipe report --open"


def report(open_it: Open = False) -> None:
    """Print the path of the report: scores, curves, confusion, verdicts, the best and worst images."""
    from segpipe.errors import MissingError
    from segpipe.workspace.paths import Paths

    path = Paths(workspace_root()).report
    if not path.exists():
        raise MissingError("no report yet", where=path, fix="segpipe run writes it")
    typer.echo(path)
    if open_it:
        typer.launch(path.as_uri())

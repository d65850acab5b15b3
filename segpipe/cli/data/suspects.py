"""`segpipe data suspects`: suspected label errors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segpipe.cli.common import Json, print_json, workspace_root

EXAMPLE = "segpipe data suspects --open\nsegpipe data suspects --candidate unet --limit 100"


def data_suspects(
    candidate: Annotated[
        str | None, typer.Option("--candidate", help="Whose model judges; by default the winner's, or the only one.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many suspects the page shows.")] = 50,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where the page goes; by default reports/suspects.html.")
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    json: Json = False,
) -> None:
    """Suspected label errors: images of val and test on which the model is sure of another class than the label. Of a candidate
    with train.folds, images of train as well: each is judged by the member that never saw it.

    Writes a page to go through by keyboard, and beside it a table (.csv) of all suspects.
    """
    from segpipe.pages.suspects import write_suspects

    root = workspace_root()
    page = out or root / "reports" / "suspects.html"
    made = write_suspects(root, candidate, limit, page)
    if json:
        print_json(made.model_dump(mode="json"))
    else:
        typer.echo(page)
    if open_it:
        typer.launch(page.resolve().as_uri())

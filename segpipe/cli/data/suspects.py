"""`segpipe data suspects`: find suspected label errors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segpipe.cli.common import Json, Open, print_json, workspace_root

EXAMPLE = "segpipe data suspects --open\nsegpipe data suspects --candidate unet --limit 100"


def data_suspects(
    candidate: Annotated[
        str | None,
        typer.Option("--candidate", help="Candidate whose model is used. Default: the winner, or the only one."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Largest number of suspects on the page.")] = 50,
    out: Annotated[
        Path | None, typer.Option("--out", help="File for the page. Default: reports/suspects.html.", metavar="FILE")
    ] = None,
    open_it: Open = False,
    json: Json = False,
) -> None:
    """Find suspected label errors: images on which the model is sure of another class than the label.

    Images of val and test are examined. For a candidate with train.folds, images of train are examined too, each with the network
    that was not trained on it.

    Writes a page for review with the keyboard and, next to it, a table (.csv) of all suspects.
    """
    from segpipe.pages.suspects import write_suspects
    from segpipe.workspace.paths import Paths

    root = workspace_root()
    page = out or Paths(root).suspects_page
    suspects = write_suspects(root, candidate, limit, page)
    if json:
        print_json(suspects.model_dump(mode="json"))
    else:
        typer.echo(page)
    if open_it:
        typer.launch(page.resolve().as_uri())

"""`segpipe data stats`: write a page about the data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segpipe.cli.common import Json, Open, print_json, workspace_root

EXAMPLE = "segpipe data stats --open\nsegpipe data stats --json"


def data_stats(
    out: Annotated[
        Path | None, typer.Option("--out", help="File for the page. Default: reports/data.html.", metavar="FILE")
    ] = None,
    open_it: Open = False,
    json: Json = False,
) -> None:
    """Write an offline page about the data: suspected problems, class balance, sizes, intensities, instances, overlays.

    With --json, print the numbers behind its charts instead.
    """
    from functools import partial

    from segpipe.pages.data_stats import read_stats, write_stats_page
    from segpipe.validation.preview import judge_manifest
    from segpipe.workspace.paths import Paths

    root = workspace_root()
    judge = partial(judge_manifest, root)
    if json:
        print_json(read_stats(root, judge).model_dump(mode="json"))
        return
    page = write_stats_page(root, out or Paths(root).data_page, judge)
    typer.echo(page)
    if open_it:
        typer.launch(page.resolve().as_uri())

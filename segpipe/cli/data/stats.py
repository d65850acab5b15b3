"""`segpipe data stats`: the data on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segpipe.cli.common import Json, print_json, workspace_root

EXAMPLE = "segpipe data stats --open\nsegpipe data stats --json"


def data_stats(
    out: Annotated[
        Path | None, typer.Option("--out", help="Where the page goes; by default reports/data.html.")
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    json: Json = False,
) -> None:
    """Look at the data on one offline page: suspected problems first, then balance, sizes, intensities, objects, overlays.

    With --json the numbers behind its charts instead.
    """
    from functools import partial

    from segpipe.pages.data_stats import read_stats, write_stats_page
    from segpipe.validation.preview import judge_manifest

    root = workspace_root()
    judge = partial(judge_manifest, root)
    if json:
        print_json(read_stats(root, judge).model_dump(mode="json"))
        return
    page = write_stats_page(root, out or root / "reports" / "data.html", judge)
    typer.echo(page)
    if open_it:
        typer.launch(page.resolve().as_uri())

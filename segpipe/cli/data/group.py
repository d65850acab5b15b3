"""Commands about the data: bring them in, look at them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segpipe.cli.common import Json, add, print_json, workspace_root
from segpipe.cli.data.export import data_export
from segpipe.cli.data.importing import ImportCommand, data_formats, data_import

PANEL = "Start"

_IMPORT = """segpipe data import ../camvid --ignore 11
segpipe data import ../cells --images scans --masks drawn --suffix _mask --classes "cell=255,membrane=0"
segpipe data import ../streets --format colour-masks --palette label_colors.txt --tolerance 8
segpipe data import ../tumours --format mask-per-class --overlapping"""


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    data = typer.Typer(help="Bring labelled images in, and look at them.", no_args_is_help=True)
    add(data, PANEL, "import", data_import, _IMPORT, cls=ImportCommand)
    add(data, PANEL, "formats", data_formats, "segpipe data formats\nsegpipe data formats --json")
    add(data, PANEL, "export", data_export, "segpipe data export ../nuclei-coco --format coco --split train,val")
    add(data, PANEL, "demo", data_demo, "segpipe data demo && dvc repro")
    add(data, PANEL, "stats", data_stats, "segpipe data stats --open\nsegpipe data stats --json")
    add(
        data,
        PANEL,
        "suspects",
        data_suspects,
        "segpipe data suspects --open\nsegpipe data suspects --candidate unet --limit 100",
    )
    app.add_typer(data, name="data", rich_help_panel=PANEL)


def data_demo(
    images: Annotated[int, typer.Option("--images", min=10, help="How many images.")] = 240,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another seed, other images.")] = 2026,
) -> None:
    """Write the embedded demo data (stained cells, three classes) into data/: the same bytes on every machine."""
    from segpipe.workspace import pipeline, create
    from segpipe.data.demo.write import write_demo
    from segpipe.workspace.git import git
    from segpipe.progress import say

    root = workspace_root()
    with create.lock(root):
        write_demo(root / "data", images, seed)
        pointer = root / pipeline.DATA_POINTER
        before = pointer.read_bytes() if pointer.exists() else None
        pipeline.add_data(root)
        if pointer.read_bytes() != before:
            git(root, "add", "data.dvc", ".gitignore")
    say(
        f"{images} images in data/, "
        + ("as data.dvc says" if pointer.read_bytes() == before else "and data.dvc names them")
    )


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

    from segpipe.pages.data import read_stats, write_stats_page
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

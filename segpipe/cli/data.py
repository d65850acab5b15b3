"""Commands about the data: bring them in, look at them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segpipe.cli.common import Json, add, print_json, workspace_root

PANEL = "Start"

_FORMATS = "How the source is laid out; `segpipe data formats` shows all layouts. auto recognises it, and says by what."
_GROUPS = "A regular expression over file names; its first group names what must not be split (a patient, a slide)."
DataFormat = Annotated[str, typer.Option("--format", help=_FORMATS)]
Classes = Annotated[
    str | None, typer.Option("--classes", help="Class names, comma-separated, in the order of their pixel values.")
]
Ignore = Annotated[str | None, typer.Option("--ignore", help="Pixel values that count nowhere, comma-separated.")]
Group = Annotated[str | None, typer.Option("--group", help=_GROUPS)]
Replace = Annotated[bool, typer.Option("--replace", help="Replace the data that are there.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    data = typer.Typer(help="Bring labelled images in, and look at them.", no_args_is_help=True)
    add(data, PANEL, "import", data_import, "segpipe data import ../camvid --format paired-list --ignore 11")
    add(data, PANEL, "demo", data_demo, "segpipe data demo && dvc repro")
    add(data, PANEL, "stats", data_stats, "segpipe data stats --open\nsegpipe data stats --json")
    app.add_typer(data, name="data", rich_help_panel=PANEL)


def data_import(
    source: Annotated[Path, typer.Argument(help="The folder with the labelled images.", metavar="SRC", exists=True)],
    format: DataFormat = "auto",
    classes: Classes = None,
    ignore: Ignore = None,
    group: Group = None,
    replace: Replace = False,
) -> None:
    """Bring labelled images into data/ and version them with DVC."""
    from segpipe import workspace

    root = workspace_root()
    with workspace.lock(root):
        import_data(root, source.resolve(), format, classes, ignore, group, replace)


def import_data(
    root: Path, source: Path, format: str, classes: str | None, ignore: str | None, group: str | None, replace: bool
) -> None:
    """Import into a workspace's data/ and version it; the caller holds the workspace's lock."""
    from segpipe import pipeline, workspace
    from segpipe.data.importer import ImportOptions, import_dataset
    from segpipe.progress import say

    options = ImportOptions(
        classes=[name.strip() for name in classes.split(",")] if classes else None,
        ignore=_numbers(ignore),
        group=group,
        replace=replace,
    )
    report = import_dataset(source, root / "data", format, options)
    for line in report.lines():
        say(line)
    pipeline.add_data(root)
    workspace.git(root, "add", "data.dvc", ".gitignore")
    say("data/ is versioned: data.dvc names it (git commit records that)")


def _numbers(text: str | None) -> list[int]:
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no list of numbers such as 0,255", param_hint="--ignore") from error


def data_demo(
    images: Annotated[int, typer.Option("--images", min=10, help="How many images.")] = 240,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another seed, other images.")] = 2026,
) -> None:
    """Write the embedded demo data (stained cells, three classes) into data/: the same bytes on every machine."""
    from segpipe import pipeline, workspace
    from segpipe.data.demo import write_demo
    from segpipe.progress import say

    root = workspace_root()
    with workspace.lock(root):
        write_demo(root / "data", images, seed)
        pointer = root / pipeline.DATA_POINTER
        before = pointer.read_bytes() if pointer.exists() else None
        pipeline.add_data(root)
        if pointer.read_bytes() != before:
            workspace.git(root, "add", "data.dvc", ".gitignore")
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
    from segpipe.data.stats import read_stats, write_stats_page

    root = workspace_root()
    if json:
        print_json(read_stats(root).model_dump(mode="json"))
        return
    page = write_stats_page(root, out or root / "reports" / "data.html")
    typer.echo(page)
    if open_it:
        typer.launch(page.resolve().as_uri())

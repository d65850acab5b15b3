"""Commands that bring labelled images in, and the options that say how they are laid out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from segpipe.cli.common import Json, print_json, workspace_root
from segpipe.cli.data.formats import print_formats

if TYPE_CHECKING:
    from segpipe.data.importer import ImportOptions, ImportReport

EXAMPLE = """segpipe data import ../camvid --ignore 11
segpipe data import ../cells --images scans --masks drawn --suffix _mask --classes "cell=255,membrane=0"
segpipe data import ../streets --format colour-masks --palette label_colors.txt --tolerance 8
segpipe data import ../tumours --format mask-per-class --overlapping"""

_FORMATS = "How the source is laid out; auto recognises it, and says by what. `segpipe data formats` shows all layouts."
_CLASSES = 'Names in the order of the pixel values, "background,cell", or each with its value, "cell=255,membrane=0".'
_GROUPS = "A regular expression over file names; its first group names what must not be split (a patient, a slide)."
DataFormat = Annotated[str, typer.Option("--format", help=_FORMATS)]
Classes = Annotated[str | None, typer.Option("--classes", help=_CLASSES)]
Ignore = Annotated[str | None, typer.Option("--ignore", help="Pixel values that count nowhere, comma-separated.")]
Group = Annotated[str | None, typer.Option("--group", help=_GROUPS)]
Replace = Annotated[bool, typer.Option("--replace", help="Replace the data that are there.")]
Images = Annotated[
    str | None, typer.Option("--images", help="The folder of images, in SRC or anywhere.", metavar="DIR")
]
Masks = Annotated[
    str | None, typer.Option("--masks", help="The folder of masks (coco: the JSON), in SRC or anywhere.", metavar="DIR")
]
Suffix = Annotated[
    str | None, typer.Option("--suffix", help="What a mask's name has after its image's name: _mask, _L.")
]
Palette = Annotated[
    str | None,
    typer.Option("--palette", help="Which colour is which class: a file (JSON, YAML, CSV, text), or voc, cityscapes.", metavar="FILE"),
]
Tolerance = Annotated[
    int | None,
    typer.Option("--tolerance", help="How far each channel may be from the palette, at blurred edges.", min=0, max=255),
]
Overlapping = Annotated[
    bool,
    typer.Option(
        "--overlapping", help="A pixel may be of several classes: masks are sums of bits, or a file for each class."
    ),
]
Table = Annotated[
    Path | None,
    typer.Option("--table", help="A CSV about the images, kept in samples.csv (default: images.csv in SRC).",
                 metavar="FILE", exists=True, dir_okay=False),
]


class ImportCommand(TyperCommand):
    """A command whose help ends with the table of layouts; what it takes to know them is loaded for that alone."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The help of any command, and the table."""
        super().format_help(ctx, formatter)
        print_formats()


def data_import(
    source: Annotated[Path, typer.Argument(help="The folder with the labelled images.", metavar="SRC", exists=True)],
    format: DataFormat = "auto",
    classes: Classes = None,
    ignore: Ignore = None,
    group: Group = None,
    images: Images = None,
    masks: Masks = None,
    suffix: Suffix = None,
    palette: Palette = None,
    tolerance: Tolerance = None,
    overlapping: Overlapping = False,
    table: Table = None,
    replace: Replace = False,
    json: Json = False,
) -> None:
    """Bring labelled images into data/ and version them with DVC."""
    from segpipe.workspace.lock import lock
    from segpipe.progress import say

    read: dict[str, Any] = {
        "images": images,
        "masks": masks,
        "suffix": suffix,
        "palette": palette,
        "tolerance": tolerance,
    }
    read["overlapping"] = overlapping or None
    options = import_options(classes, ignore, group, read=read, table=table, replace=replace)
    root = workspace_root()
    with lock(root):
        report = import_data(root, source.resolve(), format, options)
    if json:
        print_json(report.model_dump(mode="json"))
    say("Next: segpipe data stats, segpipe run")


def import_options(classes: str | None, ignore: str | None, group: str | None, **more: Any) -> ImportOptions:
    """The options of an import as the user writes them; `more` are fields of ImportOptions as they are."""
    from segpipe.data.importer import ImportOptions

    names = [name.strip() for name in classes.split(",")] if classes else None
    return ImportOptions(classes=names, ignore=_numbers(ignore), group=group, **more)


def import_data(root: Path, source: Path, format: str, options: ImportOptions) -> ImportReport:
    """Import into a workspace's data/ and version it; the caller holds the workspace's lock."""
    from segpipe.workspace import pipeline
    from segpipe.config import load_params
    from segpipe.data.importer import import_dataset
    from segpipe.workspace.git import git
    from segpipe.models.candidates import adapt_candidates, unsuitable_candidates
    from segpipe.progress import say

    report = import_dataset(source, root / "data", format, options, limits=load_params(root).data)
    for line in report.lines():
        say(line)
    kind = _are_volumes(root / "data" / "images"), report.classes.overlapping
    if adapt_candidates(root, *kind):
        git(root, "add", "params.yaml")
        say(f"params.yaml: candidates are {', '.join(load_params(root).candidates)} now, which learn from such data")
    elif told := unsuitable_candidates(root, *kind):
        say(told)
    pipeline.add_data(root)
    git(root, "add", "data.dvc", ".gitignore")
    say("data/ is versioned: data.dvc names it (git commit records that)")
    return report


def _are_volumes(images: Path) -> bool:
    """Whether most files of a folder are volumes, by their names."""
    from segpipe.data.images import VOLUME_SUFFIXES, image_files, suffix_of

    found = [suffix_of(path) in VOLUME_SUFFIXES for path in image_files(images)]
    return 2 * sum(found) > len(found)


def _numbers(text: str | None) -> list[int]:
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no list of numbers such as 0,255", param_hint="--ignore") from error

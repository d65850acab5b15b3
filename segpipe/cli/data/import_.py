"""`segpipe data import`: import labelled images, and the options that describe their layout."""

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

_FORMATS = "Layout of the source. auto recognises it and reports how. `segpipe data formats` lists all layouts."
_CLASSES = (
    'Class names in the order of their pixel values, "background,cell", or each with its value, "cell=255,membrane=0".'
)
_GROUPS = "Regular expression for file names. Images with the same first capture group (a patient, a slide) stay in one split."
_IMAGES = "Folder of the images, in SRC or elsewhere."
_MASKS = "Folder of the masks (for coco: the JSON file), in SRC or elsewhere."
_SUFFIX = "Suffix of a mask's name after the name of its image, such as _mask or _L."
_PALETTE = "The class of each colour: a file (JSON, YAML, CSV, text), or voc, cityscapes."
_TOLERANCE = "Largest difference of each channel from a palette colour, for blurred edges."
_OVERLAPPING = "A pixel may have several classes: masks are sums of bits, or there is one mask file per class."
_TABLE = "CSV table with columns about the images, which are stored in samples.csv. Default: images.csv in SRC, if there is one."

DataFormat = Annotated[str, typer.Option("--format", help=_FORMATS)]
Classes = Annotated[str | None, typer.Option("--classes", help=_CLASSES)]
Ignore = Annotated[
    str | None,
    typer.Option("--ignore", help="Pixel values of unlabelled pixels, comma-separated; they are not counted."),
]
Group = Annotated[str | None, typer.Option("--group", help=_GROUPS)]
Replace = Annotated[bool, typer.Option("--replace", help="Replace the data in data/.")]
Images = Annotated[str | None, typer.Option("--images", help=_IMAGES, metavar="DIR")]
Masks = Annotated[str | None, typer.Option("--masks", help=_MASKS, metavar="DIR")]
Suffix = Annotated[str | None, typer.Option("--suffix", help=_SUFFIX)]
Palette = Annotated[str | None, typer.Option("--palette", help=_PALETTE, metavar="FILE")]
Tolerance = Annotated[int | None, typer.Option("--tolerance", help=_TOLERANCE, min=0, max=255)]
Overlapping = Annotated[bool, typer.Option("--overlapping", help=_OVERLAPPING)]
Table = Annotated[Path | None, typer.Option("--table", help=_TABLE, metavar="FILE", exists=True, dir_okay=False)]


class ImportCommand(TyperCommand):
    """A command whose help ends with the table of layouts. Their modules are only imported for the help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the usual help, then the table."""
        super().format_help(ctx, formatter)
        print_formats()


def data_import(
    source: Annotated[Path, typer.Argument(help="Folder with the labelled images.", metavar="SRC", exists=True)],
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
    """Import labelled images into data/, and version them with DVC."""
    from segpipe.progress import say
    from segpipe.workspace.lock import lock

    layout: dict[str, Any] = {
        "images": images,
        "masks": masks,
        "suffix": suffix,
        "palette": palette,
        "tolerance": tolerance,
        "overlapping": overlapping or None,
    }
    options = import_options(classes, ignore, group, read=layout, table=table, replace=replace)
    root = workspace_root()
    with lock(root):
        report = import_data(root, source.resolve(), format, options)
    if json:
        print_json(report.model_dump(mode="json"))
    say("Next: segpipe data stats, segpipe run")


def import_options(classes: str | None, ignore: str | None, group: str | None, **fields: Any) -> ImportOptions:
    """Parse the options of an import.

    Args:
        classes: value of --classes.
        ignore: value of --ignore.
        group: value of --group.
        fields: further fields of `ImportOptions`.
    """
    from segpipe.data.importer import ImportOptions

    names = [name.strip() for name in classes.split(",")] if classes else None
    return ImportOptions(classes=names, ignore=_numbers(ignore), group=group, **fields)


def import_data(root: Path, source: Path, format: str, options: ImportOptions) -> ImportReport:
    """Import labelled images into a workspace's data/, version them, and choose candidates that can learn from them.

    Args:
        root: the workspace; the caller holds its lock.
        source: the folder with the labelled images.
        format: the layout of the source, or "auto".
        options: the user's options.

    Returns:
        The report of the import, which is also printed.
    """
    from segpipe.config import load_params
    from segpipe.data.importer import import_dataset
    from segpipe.models.candidates import adapt_candidates, unsuitable_candidates
    from segpipe.progress import say
    from segpipe.workspace import pipeline
    from segpipe.workspace.git import git
    from segpipe.workspace.paths import Paths

    report = import_dataset(source, Paths(root).data, format, options, limits=load_params(root).data)
    for line in report.lines():
        say(line)
    kind = _are_volumes(Paths(root).data / "images"), report.classes.overlapping
    if adapt_candidates(root, *kind):
        git(root, "add", "params.yaml")
        say(
            f"params.yaml: the candidates are now {', '.join(load_params(root).candidates)}, which can learn from such data"
        )
    elif message := unsuitable_candidates(root, *kind):
        say(message)
    pipeline.add_data(root)
    git(root, "add", "data.dvc", ".gitignore")
    say("data/ is versioned in data.dvc; run git commit to record it")
    return report


def _are_volumes(images: Path) -> bool:
    """Return whether most files of a folder are volumes, judged by their names."""
    from segpipe.data.images import VOLUME_SUFFIXES, image_files, suffix_of

    volumes = [suffix_of(path) in VOLUME_SUFFIXES for path in image_files(images)]
    return 2 * sum(volumes) > len(volumes)


def _numbers(text: str | None) -> list[int]:
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a list of numbers such as 0,255", param_hint="--ignore") from error

"""The options that describe a source, which `init`, `data import` and `data inspect` share."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from segpipe.data.importer import ImportOptions

MaskKind = Literal["classes", "instances", "colours", "binary", "alpha"]
"""The values of --kind, as `segpipe.data.formats.source.MaskKind`, which is too heavy to import for the help."""

_FORMATS = "Layout of the source. auto recognises it and reports how. `segpipe data formats` lists all layouts."
_CLASSES = (
    'Class names in the order of their pixel values, "background,cell", or each with its value, "cell=255,membrane=0".'
)
_GROUPS = (
    "Regular expression for file names (for paths in SRC, if it has a slash). Its first group names what must stay in one split, such "
    "as a patient or a slide."
)
_IMAGES = "Folder of the images, in SRC or elsewhere."
_MASKS = "Folder of the masks (for coco: the JSON file), in SRC or elsewhere."
_SUFFIX = "What the name of a mask has after the name of its image: _mask, _L."
_PALETTE = "The class of each colour: a file (JSON, YAML, CSV, text), or voc, cityscapes."
_TOLERANCE = "Largest difference of each channel from a palette colour, for blurred edges."
_OVERLAPPING = "A pixel may have several classes: masks are sums of bits, or there is one mask file per class."
_TABLE = "CSV table with columns about the images, which are stored in samples.csv. Default: images.csv in SRC, if there is one."

_KIND = "What the pixels of masks are: classes, instances, colours, binary (divided at a threshold) or alpha. Default: judged."
_THRESHOLD = (
    "Masks become two classes: pixels of at least this value are foreground. For JPEG masks, soft edges and shares."
)
_UNKNOWN = "Pixels of colours that are not in the palette: an error (default), or ignored."
_EXIF = "Masks fit images as viewers show them, turned by EXIF (apply), or as they are stored (ignore)."
_UNLABELLED = "Images without a usable mask are left out (omit), or kept without labels (keep)."

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
Kind = Annotated[MaskKind | None, typer.Option("--kind", help=_KIND)]
Threshold = Annotated[float | None, typer.Option("--threshold", help=_THRESHOLD)]
UnknownColours = Annotated[Literal["error", "ignore"] | None, typer.Option("--unknown-colours", help=_UNKNOWN)]
Exif = Annotated[Literal["apply", "ignore"] | None, typer.Option("--exif", help=_EXIF)]
Unlabelled = Annotated[Literal["omit", "keep"], typer.Option("--unlabelled", help=_UNLABELLED)]
Yes = Annotated[bool, typer.Option("--yes", help="Take the first reading where several fit, for scripts.")]
Table = Annotated[Path | None, typer.Option("--table", help=_TABLE, metavar="FILE", exists=True, dir_okay=False)]


def import_options(
    command: str, classes: str | None, ignore: str | None, group: str | None, read: dict[str, Any], **fields: Any
) -> ImportOptions:
    """Parse the options of an import.

    Args:
        command: the command without options, which errors repeat with the options that choose a reading.
        classes: value of --classes.
        ignore: value of --ignore.
        group: value of --group.
        read: the options about the files of the source, by name; None for those that are not given.
        fields: further fields of `ImportOptions`.
    """
    from segpipe.data.importer import ImportOptions

    names = [name.strip() for name in classes.split(",")] if classes else None
    given = {"classes": classes, "ignore": ignore, "group": group, **read, **_given(fields)}
    return ImportOptions(
        classes=names,
        ignore=_numbers(ignore),
        group=group,
        read=read,
        command=shlex.join([*shlex.split(command), *_as_arguments(given)]),
        **fields,
    )


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    """Return those further options that a repeated command needs."""
    unlabelled = fields.get("unlabelled")
    return {
        "table": fields.get("table"),
        "replace": fields.get("replace") or None,
        "unlabelled": None if unlabelled == "omit" else unlabelled,
    }


def _as_arguments(given: dict[str, Any]) -> list[str]:
    arguments: list[str] = []
    for name, value in given.items():
        if value is not None:
            arguments += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return arguments


def _numbers(text: str | None) -> list[int]:
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a list of numbers such as 0,255", param_hint="--ignore") from error

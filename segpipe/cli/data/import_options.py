"""The options that describe a source, which `init`, `data import` and `data inspect` share."""

from __future__ import annotations

import functools
import inspect
import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

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
_MASKS = "Folder of the masks (for coco, cvat, via: the annotation file), in SRC or elsewhere."
_SUFFIX = "What the name of a mask has after the name of its image: _mask, _L."
_PREFIX = (
    "What the name of a mask has before the name of its image (or that of an image before its mask's): mask_, gt_."
)
_PATTERN = "Regular expression for the paths of images in SRC. Its groups pair them with masks: '(.+)_sat'. Needs --mask-pattern."
_MASK_PATTERN = "Regular expression for the paths of masks in SRC, which captures the same text: '(.+)_mask'."
_TO = "All images become RGB or grey. Default: as they are; if grey ones are mixed with colour ones, RGB."
_GROUP_FROM_FOLDER = (
    "The folder of an image (such as its patient or site) is its group: images of a group stay in one split."
)
_PALETTE = "The class of each colour: a file (JSON, YAML, CSV, text), or voc, cityscapes."
_TOLERANCE = "Largest difference of each channel from a palette colour, for blurred edges."
_ATTRIBUTE = "Attribute (via) or property (geojson) of shapes that holds the class; none: they are of one class."
_OVERLAPPING = "A pixel may have several classes: masks are sums of bits, or there is one mask file per class."
_TABLE = (
    "CSV table about the images. Its columns are stored in samples.csv; columns named split and group assign images to these. Default: "
    "samples.csv or images.csv in SRC, if there is one."
)

_KIND = (
    "What the pixels of masks are: classes, instances, colours, binary (divided at a threshold) or alpha. Default: determined from "
    "the pixels."
)
_THRESHOLD = (
    "Masks become two classes: pixels of at least this value are foreground. For JPEG masks, soft edges and shares."
)
_UNKNOWN = "Pixels of colours that are not in the palette: an error (default), or ignored."
_EXIF = "Masks fit images as viewers show them, turned by EXIF (apply), or as they are stored (ignore)."
_CHANNELS = "Channels of images with one file per channel, in order: flair,t1,t1ce,t2."
_LABEL = "Which file of a case holds the labels: seg."
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
Prefix = Annotated[str | None, typer.Option("--prefix", help=_PREFIX)]
Pattern = Annotated[str | None, typer.Option("--pattern", help=_PATTERN, metavar="REGEX")]
MaskPattern = Annotated[str | None, typer.Option("--mask-pattern", help=_MASK_PATTERN, metavar="REGEX")]
To = Annotated[Literal["rgb", "grey"] | None, typer.Option("--to", help=_TO)]
GroupFromFolder = Annotated[bool, typer.Option("--group-from-folder", help=_GROUP_FROM_FOLDER)]
Palette = Annotated[str | None, typer.Option("--palette", help=_PALETTE, metavar="FILE")]
Tolerance = Annotated[int | None, typer.Option("--tolerance", help=_TOLERANCE, min=0, max=255)]
Attribute = Annotated[str | None, typer.Option("--attribute", help=_ATTRIBUTE, metavar="NAME")]
Overlapping = Annotated[bool, typer.Option("--overlapping", help=_OVERLAPPING)]
Kind = Annotated[MaskKind | None, typer.Option("--kind", help=_KIND)]
Threshold = Annotated[float | None, typer.Option("--threshold", help=_THRESHOLD)]
UnknownColours = Annotated[Literal["error", "ignore"] | None, typer.Option("--unknown-colours", help=_UNKNOWN)]
Exif = Annotated[Literal["apply", "ignore"] | None, typer.Option("--exif", help=_EXIF)]
Channels = Annotated[str | None, typer.Option("--channels", help=_CHANNELS, metavar="NAMES")]
Label = Annotated[str | None, typer.Option("--label", help=_LABEL, metavar="NAME")]
Unlabelled = Annotated[Literal["omit", "keep"], typer.Option("--unlabelled", help=_UNLABELLED)]
Yes = Annotated[bool, typer.Option("--yes", help="Take the first reading where several fit, for scripts.")]
Table = Annotated[Path | None, typer.Option("--table", help=_TABLE, metavar="FILE", exists=True, dir_okay=False)]


_NOT_OF_FILES = ("to", "group", "group_from_folder", "unlabelled")
"""The options about a source that are not about how its files are read."""


@dataclass(frozen=True)
class SourceOptions:
    """The values of the options that say how a source is read; None for those that are not given."""

    format: DataFormat = "auto"
    classes: Classes = None
    ignore: Ignore = None
    images: Images = None
    masks: Masks = None
    suffix: Suffix = None
    prefix: Prefix = None
    pattern: Pattern = None
    mask_pattern: MaskPattern = None
    palette: Palette = None
    tolerance: Tolerance = None
    unknown_colours: UnknownColours = None
    kind: Kind = None
    threshold: Threshold = None
    exif: Exif = None
    attribute: Attribute = None
    channels: Channels = None
    label: Label = None
    overlapping: Overlapping = False
    to: To = None
    group: Group = None
    group_from_folder: GroupFromFolder = False
    unlabelled: Unlabelled = "omit"


def with_source_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `SourceOptions`, in the place of its parameter `source_options`."""
    own = list(inspect.signature(command).parameters.values())
    hints = get_type_hints(command, include_extras=True)
    option_hints = get_type_hints(SourceOptions, include_extras=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters: list[inspect.Parameter] = []
    for parameter in own:
        if parameter.name == "source_options":
            parameters += [
                inspect.Parameter(field.name, keyword, default=field.default, annotation=option_hints[field.name])
                for field in fields(SourceOptions)
            ]
        else:
            parameters.append(parameter.replace(kind=keyword, annotation=hints[parameter.name]))

    @functools.wraps(command)
    def run(**values: Any) -> None:
        options = SourceOptions(**{name: values.pop(name) for name in option_hints})
        command(**values, source_options=options)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def import_options(
    command: str,
    source_options: SourceOptions,
    **further: Any,
) -> ImportOptions:
    """Parse the options of an import.

    Args:
        command: the command without options, which errors repeat with the options that choose a reading.
        source_options: the options about the source.
        further: other fields of `ImportOptions`: table, replace, yes.

    Raises:
        ConfigError: the options contradict each other.
    """
    from segpipe.data.importer import ImportOptions

    _check_groups(source_options)
    values = asdict(source_options)
    del values["format"]  # errors name the format of each reading
    classes, ignore = values.pop("classes"), values.pop("ignore")
    general = {name: values.pop(name) for name in _NOT_OF_FILES}
    values["overlapping"] = values["overlapping"] or None
    repeated = {
        "classes": classes,
        "ignore": ignore,
        **values,
        **general,
        "group_from_folder": general["group_from_folder"] or None,
        "table": further.get("table"),
        "replace": further.get("replace") or None,
        "unlabelled": None if general["unlabelled"] == "omit" else general["unlabelled"],
    }
    return ImportOptions(
        classes=[name.strip() for name in classes.split(",")] if classes else None,
        ignore=_numbers(ignore),
        **general,
        read=values,
        command=shlex.join([*shlex.split(command), *_as_arguments(repeated)]),
        **further,
    )


def _check_groups(options: SourceOptions) -> None:
    """Raise ConfigError if groups are named in two ways."""
    from segpipe.errors import ConfigError

    if options.group is not None and options.group_from_folder:
        raise ConfigError(
            "groups are named twice",
            where="--group and --group-from-folder",
            expected="one of them",
            fix="omit one of them; --group with a slash is matched against paths: '^([^/]+)/'",
        )


def _as_arguments(options: dict[str, Any]) -> list[str]:
    """Return options as arguments of a command; those that are None are left out, and True is a flag."""
    arguments: list[str] = []
    for name, value in options.items():
        if value is not None:
            arguments += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return arguments


def _numbers(text: str | None) -> list[int]:
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a list of numbers such as 0,255", param_hint="--ignore") from error

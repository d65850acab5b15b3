"""The options and results of the readers of all layouts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from segpipe.config import DataParams
from segpipe.errors import DataError
from segpipe.samples import ClassTable

MaskKind = Literal["classes", "instances", "colours", "binary", "alpha"]
"""What the pixels of mask files stand for: class values, instance ids, colours of classes, two classes divided at a threshold, or
class values in the alpha channel."""


class ReadOptions(BaseModel):
    """The user's options about a source. Each layout lists those that it uses; the importer rejects the others."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    images: str | None = None
    """The folder of images, relative to the source or absolute."""
    masks: str | None = None
    """The folder of masks (or the annotation file), relative to the source or absolute."""
    suffix: str | None = None
    """The text after the image's name in the name of its mask, before the dot."""
    prefix: str | None = None
    """The text before the image's name in the name of its mask; or before the mask's name in the name of its image."""
    pattern: str | None = None
    """A regular expression for the paths of images. What it captures pairs them with masks."""
    mask_pattern: str | None = None
    """A regular expression for the paths of masks; only together with `pattern`."""
    palette: str | None = None
    """A file with the colour of each class, or the name of a known palette."""
    tolerance: int | None = Field(None, ge=0, le=255)
    """The largest difference of a channel from the palette's colour, for pixels of blurred edges."""
    unknown_colours: Literal["error", "ignore"] | None = None
    """What happens to pixels of colours that are not in the palette: an error (default), or they are ignored."""
    kind: MaskKind | None = None
    """What the pixels of masks stand for. None: judged from a sample of them."""
    threshold: float | None = None
    """Mask pixels of at least this value are foreground, the others are background."""
    exif: Literal["apply", "ignore"] | None = None
    """What masks were drawn on: the images as viewers show them, turned by their EXIF orientation (apply), or as they are stored."""
    attribute: str | None = None
    """The attribute of shapes that holds the class, if an annotation file has several."""
    channels: str | None = None
    """The channels of images with one file per channel, by the part of the files' names that tells them apart, comma-separated."""
    label: str | None = None
    """The same part of the name of the file that holds the labels."""
    overlapping: bool | None = None
    """True if a pixel may have several classes. None: as the source says, otherwise one class per pixel."""

    limits: DataParams = DataParams()
    """Limits on file sizes and the meaning of TIFF pages. They come from params.yaml, not from the command line."""

    def names_set(self) -> list[str]:
        """Return the names of the options that the user has set."""
        return [name for name, value in self if value is not None and name != "limits"]


PAIRING_FIELDS = ("images", "masks", "suffix", "prefix", "pattern", "mask_pattern")
"""The options that decide which files are images and masks, and which belong together."""

NO_OPTIONS = ReadOptions()
"""Nothing set by the user."""


@dataclass(frozen=True)
class Drawing:
    """Labels that were drawn, and not copied from a file of class values.

    mask: (H, W), uint8 or uint16, file values of the source's class table.
    instances: (H, W), uint16 instance ids, 0 for none; None if the annotations do not know instances.
    notes: decisions made while drawing and how often each was made, for instance
        {"pixels where instances overlap: the smaller instance is kept": 12}.
    """

    mask: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    instances: npt.NDArray[np.uint16] | None = None
    notes: Counter[str] = field(default_factory=Counter)


Draw = Callable[[int, int], Drawing]
"""Draws the labels of one image, given its height and width in pixels. Raises DataError if the annotations are broken."""


@dataclass(frozen=True)
class VolumeDrawing:
    """The labels of a volume that were drawn.

    content: the bytes of a gzipped NIfTI file of class values.
    notes: decisions made while drawing, and how often each was made.
    instances: the same of instance ids; None if the source does not know instances.
    """

    content: bytes
    notes: Counter[str] = field(default_factory=Counter)
    instances: bytes | None = None


class DrawVolume(Protocol):
    """Draws the labels of a volume. Raises DataError if they are broken.

    value_files: mask files in whose values the classes are looked for; empty if the source names the classes.
    """

    @property
    def value_files(self) -> tuple[Path, ...]: ...  # noqa: D102

    def __call__(self) -> VolumeDrawing: ...  # noqa: D102


@dataclass(frozen=True)
class RawItem:
    """One image of a source. `name` is its path relative to the source without the ending; the importer derives the key from it.

    Its labels are a file of class values (`mask`), or drawn (`draw`; a volume: `draw_volume`), or it has none; never two of them.
    """

    name: str
    image: Path
    mask: Path | None = None
    instances: Path | None = None
    group: str | None = None
    split: str | None = None
    draw: Draw | None = None
    draw_volume: DrawVolume | None = None
    content: Callable[[], bytes] | None = None
    """Returns the bytes of the image if no file holds them; `image` then only gives the name."""

    @property
    def is_labelled(self) -> bool:
        """True if it has labels, in a file or drawn."""
        return self.mask is not None or self.draw is not None or self.draw_volume is not None


@dataclass
class ReadResult:
    """The result of reading a source: items, the class table if the source has one, files that were left out, and notes.

    skipped: (file, reason) for everything that was left out.
    notes: sentences for the user.
    classes_from: where `classes` comes from, in words.
    channels: the names of the channels of all images; empty if the source does not name them.
    used_files: further files of the source that were read, such as annotations, lists and tables.
    palettes: files of palettes that the reader has found; masks in colours need exactly one.
    """

    items: list[RawItem]
    classes: ClassTable | None = None
    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    classes_from: str = "written in the source"
    used_files: set[Path] = field(default_factory=set)
    palettes: tuple[Path, ...] = ()
    channels: tuple[str, ...] = ()

    def copy(self) -> ReadResult:
        """Return a result with lists of its own."""
        return replace(
            self,
            items=[*self.items],
            skipped=[*self.skipped],
            notes=[*self.notes],
            used_files={*self.used_files},
        )


def resolve_inside(source: Path, name: str, where: str) -> Path:
    """Resolve a path that a list or an annotation names. It need not exist.

    Args:
        source: the folder that the path must not leave.
        name: the path, relative to `source` or absolute.
        where: the list or annotation, for errors.

    Raises:
        DataError: the path leads out of `source`, by `..`, as an absolute path or through a link, or it is not a valid path.
    """
    try:
        path = (source / name).resolve()
        path.exists()
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in the name, a name too long, a loop of links
        raise DataError("not a valid file name", where=where, found=repr(name[:80]), fix="correct the name") from error
    if not path.is_relative_to(source.resolve()):
        raise DataError(
            "names a file outside its folder",
            where=where,
            found=name,
            expected=f"a path below {source}",
            fix="make the paths of the list relative to its folder",
        )
    return path


def check_size(path: Path, array: np.ndarray, height: int, width: int) -> None:
    """Check that labels (H, W, ...) have the size of their image.

    Raises:
        DataError: they do not.
    """
    if array.shape[:2] != (height, width):
        raise DataError(
            "not the size of its image",
            where=path,
            found=f"{array.shape[1]} x {array.shape[0]}",
            expected=f"{width} x {height}",
            fix="export image and mask at the same size",
        )

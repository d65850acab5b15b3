"""What a reader of a layout finds in a source folder. Nothing is opened yet but small tables."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from segpipe.config import DataParams
from segpipe.errors import DataError
from segpipe.samples import ClassTable


class ReadOptions(BaseModel):
    """What the user says about where things lie in a source; a layout takes what concerns it, the importer refuses the rest."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    images: str | None = None
    """The folder of images, relative to the source or absolute."""
    masks: str | None = None
    """The folder of masks (or the annotation file), relative to the source or absolute."""
    suffix: str | None = None
    """What a mask's name has after its image's name, before the dot."""
    palette: str | None = None
    """A file that says which colour is which class, or the name of a known palette."""
    tolerance: int | None = Field(None, ge=0, le=255)
    """How far a channel of a colour may be from the palette's, for pixels of blurred edges."""
    overlapping: bool | None = None
    """Whether a pixel may be of several classes; None: the source says so, or it is of one."""

    limits: DataParams = DataParams()  # type: ignore[call-arg]
    """How large files may be that labels are drawn from, and what TIFF pages are: not of the user's telling, but of params.yaml."""

    def given(self) -> list[str]:
        """The names of what the user has said."""
        return [name for name, value in self if value is not None and name != "limits"]


@dataclass(frozen=True)
class Drawing:
    """Labels drawn from annotations that are no file of class values.

    mask: (H, W), uint8 or uint16 file values of the source's class table.
    instances: (H, W), uint16 object ids, 0 for none; None where the annotations know no objects.
    notes: what had to be decided, with how often: {"pixels where objects overlap: the smaller object is kept": 12}.
    """

    mask: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    instances: npt.NDArray[np.uint16] | None = None
    notes: Counter[str] = field(default_factory=Counter)


Draw = Callable[[int, int], Drawing]
"""Draws the labels of one image, given its height and width; raises DataError where the annotations are broken."""


@dataclass(frozen=True)
class RawItem:
    """One image of a source. `name` is its path relative to the source without the ending; the importer makes a key of it.

    Its labels are a file of class values (`mask`) or are drawn (`draw`), or there are none; never both.
    """

    name: str
    image: Path
    mask: Path | None = None
    instances: Path | None = None
    group: str | None = None
    split: str | None = None
    draw: Draw | None = None
    content: Callable[[], bytes] | None = None
    """Gives the bytes of the image where no file holds them; `image` then is but its name."""


@dataclass
class ReadResult:
    """All of a source: items, the class table where the source brings one, files left out with the reason, words for the user."""

    items: list[RawItem]
    classes: ClassTable | None = None
    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    classes_from: str = "written in the source"
    """Where `classes` comes from, in words."""


def resolve_inside(source: Path, name: str, where: str) -> Path:
    """The path that a list or an annotation names, resolved; whether a file is there is for the caller to see.

    Raises DataError, naming `where`, for one outside the source folder: by .., by an absolute path, by a link.
    """
    try:
        path = (source / name).resolve()
        path.exists()
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in the name, a name too long, a loop of links
        raise DataError("names no file", where=where, found=repr(name[:80]), fix="correct the name") from error
    if not path.is_relative_to(source.resolve()):
        raise DataError(
            "names a file outside its folder", where=where, found=name, expected=f"a path below {source}",
            fix="make the paths of the list relative to its folder",
        )
    return path


def files_below(folder: Path) -> Iterator[Path]:
    """Every file at any depth, in name order, hidden ones and pipes left out; links to folders are followed.

    Raises DataError for a loop of links, and for a folder that cannot be read.
    """
    yield from _walk(folder, frozenset())


def _walk(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    try:
        status = folder.stat()
        with os.scandir(folder) as entries:
            found = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}", where=folder, fix="check the folder and its permissions"
        ) from error
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise DataError("a link leads back to a folder above it", where=folder, fix="remove the link")
    for entry in found:
        try:
            nested = entry.is_dir()
        except OSError:  # a link to itself: reading it as a file will say so
            nested = False
        if nested:
            yield from _walk(Path(entry.path), above | {here})
        elif entry.is_symlink() or entry.is_file():
            yield Path(entry.path)


def check_size(path: Path, array: np.ndarray, height: int, width: int) -> None:
    """DataError where labels (H, W, ...) are not of their image's size."""
    if array.shape[:2] != (height, width):
        raise DataError(
            "not the size of its image", where=path, found=f"{array.shape[1]} x {array.shape[0]}",
            expected=f"{width} x {height}", fix="export image and mask at the same size",
        )

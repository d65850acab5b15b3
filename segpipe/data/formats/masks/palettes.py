"""Palettes: the class of each mask colour, and the conversion of masks in colours to class values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from segpipe.data.images.statistics import row_bands
from segpipe.errors import DataError
from segpipe.samples import MAX_CLASSES, ClassSpec, ClassTable
from segpipe.words import listed

RGB = tuple[int, int, int]
CodeCounts = tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]
"""Different colour codes (0xRRGGBB), and the number of pixels of each."""

IGNORED_NAMES = {
    "void",
    "ignore",
    "ignored",
    "unlabelled",
    "unlabeled",
    "__ignore__",
    "_ignore_",
    "ignore label",
    "unknown",
}
"""Names, in lower case, of colours whose pixels are ignored."""

_MAX_UNKNOWN_SHOWN, _MAX_ENTRIES_SHOWN = 4, 12
_BAND, _BLOCK = 1 << 22, 4096
_BACKGROUND_NAMES = ("background", "_background_", "bg")
_IGNORED = 255
"""The file value of ignored pixels."""
_FAR = np.iinfo(np.int32).max


class EncodedMask(NamedTuple):
    """A mask in colours as class values.

    values: file values, (H, W) uint8.
    approximated: the number of pixels whose colour was replaced by the nearest one of the palette.
    ignored: the number of pixels whose colour is not in the palette, and which are ignored.
    """

    values: npt.NDArray[np.uint8]
    approximated: int
    ignored: int


@dataclass(frozen=True)
class Palette:
    """Colours and the file values of their classes.

    classes: the class table; the value of a class is its index among the names.
    colors: (N, 3) uint8 RGB.
    values: (N,) uint8, the file value of each colour.
    origin: where the palette comes from, in words.
    """

    classes: ClassTable
    colors: npt.NDArray[np.uint8]
    values: npt.NDArray[np.uint8]
    origin: str

    def with_ignored(self) -> Palette:
        """Return the same palette whose class table has an ignored value, 255, unless it has one already."""
        if self.classes.ignore:
            return self
        return replace(self, classes=self.classes.model_copy(update={"ignore": (_IGNORED,)}))

    def encode(self, image: np.ndarray, where: str, tolerance: int, ignore_unknown: bool = False) -> EncodedMask:
        """Convert a mask in colours to class values.

        Args:
            image: (H, W, C) uint8, C 1 or 3.
            where: the file, for errors.
            tolerance: a colour that is not in the palette is replaced by the nearest one whose channels all differ by at most
                this (0..255).
            ignore_unknown: whether pixels of colours without such a neighbour get the ignored value 255.

        Raises:
            DataError: a colour has no such neighbour (the error lists colours and their numbers of pixels), or the image is not
                an 8-bit image in colours.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
            raise DataError(
                "is not a mask in 8-bit colours",
                where=where,
                found=f"{image.dtype}, shape {image.shape}",
                expected="RGB",
                fix="save it as 8-bit RGB PNG",
            )
        parts = row_bands(np.broadcast_to(image, (*image.shape[:2], 3)), _BAND)
        present, counts = _merge([_count(_codes(part)) for part in parts])
        colours = np.stack([present >> 16, present >> 8 & 255, present & 255], axis=1).astype(np.int32)
        nearest, distance = self._nearest(colours, tolerance)
        unknown = nearest < 0
        if unknown.any() and not ignore_unknown:
            raise _unknown_colours(where, colours[unknown], counts[unknown], tolerance)
        table = np.empty(1 << 24, np.uint8)  # memory pages that no colour touches are never allocated
        table[present] = np.where(unknown, np.uint8(_IGNORED), self.values[nearest])
        values = np.concatenate([table[_codes(part)] for part in parts])
        return EncodedMask(values, int(counts[(distance > 0) & ~unknown].sum()), int(counts[unknown].sum()))

    def _nearest(
        self, colours: npt.NDArray[np.int32], tolerance: int
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int32]]:
        """Return, for each colour (N, 3), the index of the nearest one within the tolerance (-1: none) and its squared distance."""
        nearest, distance = np.empty(len(colours), np.intp), np.empty(len(colours), np.int32)
        for start in range(0, len(colours), _BLOCK):
            block = slice(start, start + _BLOCK)
            differences = np.abs(colours[block, None] - self.colors.astype(np.int32))
            squares = np.where(differences.max(2) <= tolerance, (differences**2).sum(2), _FAR)
            nearest[block], distance[block] = squares.argmin(1), squares.min(1)
        nearest[distance == _FAR] = -1
        return nearest, distance


def make_palette(entries: list[tuple[str, RGB]], origin: str, where: Path | None = None) -> Palette:
    """Return the palette of names and their colours. A name may occur several times, a colour only once.

    Args:
        entries: (name, colour); names in `IGNORED_NAMES` mark ignored pixels, unless fewer than two classes would remain.
        origin: where the palette comes from, in words.
        where: the file, for errors.

    Raises:
        DataError: there are too few or too many classes, or two classes share a colour.
    """
    names = list(dict.fromkeys(name for name, _ in entries))
    first_colours = dict(reversed(entries))
    by_colour = {colour: name for name, colour in entries}
    class_names = [name for name in names if name.lower() not in IGNORED_NAMES]
    class_names = class_names if len(class_names) > 1 else names
    class_names.sort(key=lambda name: name.strip().lower() not in _BACKGROUND_NAMES)  # the background is value 0
    if not 2 <= len(class_names) <= MAX_CLASSES or any(by_colour[colour] != name for name, colour in entries):
        raise DataError(
            "is not a valid palette",
            where=where or origin,
            found=listed((f"{name} {colour}" for name, colour in entries), _MAX_ENTRIES_SHOWN) or "nothing",
            expected=f"2 to {MAX_CLASSES} classes, each colour once",
        )
    values = {name: index for index, name in enumerate(class_names)}
    values |= {name: _IGNORED for name in names if name not in class_names}
    table = ClassTable(
        classes=tuple(ClassSpec(name=name, value=values[name], color=first_colours[name]) for name in class_names),
        ignore=(_IGNORED,) if len(class_names) < len(names) else (),
    )
    colours = np.array([colour for _, colour in entries], np.uint8)
    return Palette(table, colours, np.array([values[name] for name, _ in entries], np.uint8), origin)


def _codes(image: np.ndarray) -> npt.NDArray[np.uint32]:
    """Return the colours of an image (H, W, 3) as numbers 0xRRGGBB, (H, W)."""
    codes = image[:, :, 0].astype(np.uint32)
    for channel in (1, 2):
        codes <<= 8
        codes |= image[:, :, channel]
    return codes


def _count(codes: npt.NDArray[np.uint32]) -> CodeCounts:
    """Count the pixels of each code. Runs of equal codes are collapsed first: sorting all pixels takes far longer."""
    flat = codes.ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    return _merge([(flat[starts], np.diff(np.append(starts, flat.size)))])


def _merge(counted: list[CodeCounts]) -> CodeCounts:
    """Merge counts in which a code may occur several times."""
    present, inverse = np.unique(np.concatenate([codes for codes, _ in counted]), return_inverse=True)
    counts = np.concatenate([counts for _, counts in counted])
    return present, np.bincount(inverse, counts, len(present)).astype(np.int64)


def _unknown_colours(where: str, colours: np.ndarray, counts: np.ndarray, tolerance: int) -> DataError:
    order = np.argsort(-counts, kind="stable")
    shown = [f"{tuple(map(int, colours[k]))} on {counts[k]:,} pixel{'s' if counts[k] > 1 else ''}" for k in order]
    return DataError(
        "holds colours that are not in the palette",
        where=where,
        found=listed(shown, _MAX_UNKNOWN_SHOWN),
        expected=f"colours of the palette, each channel different by at most {tolerance}",
        fix="add them to the palette; if edges are blurred, allow a larger difference (--tolerance N); "
        "or ignore these pixels (--unknown-colours ignore)",
    )

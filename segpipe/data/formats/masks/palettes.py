"""Palettes: which colour of a mask is which class, and masks in colours made masks of values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segpipe.data.images.statistics import row_bands
from segpipe.errors import DataError
from segpipe.samples import MAX_CLASSES, ClassSpec, ClassTable

RGB = tuple[int, int, int]
CodeCounts = tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]

IGNORED_NAMES = {"void", "ignore", "ignored", "unlabelled", "unlabeled", "__ignore__", "_ignore_", "ignore label"}

_SHOWN = 4
_BAND, _BLOCK = 1 << 22, 4096
_FAR = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Palette:
    """Colours and the file values of their classes.

    classes: the table; a class has the value of its place among the names. colors: (N, 3) RGB. values: (N,), the file value of
    each colour.
    """

    classes: ClassTable
    colors: npt.NDArray[np.uint8]
    values: npt.NDArray[np.uint8]
    origin: str

    def encode(self, image: np.ndarray, where: str, tolerance: int) -> tuple[npt.NDArray[np.uint8], int]:
        """A mask in colours, (H, W, C) uint8, C 1 or 3 -> file values (H, W), uint8, and the number of pixels that are of none of the
        colours, which get that of the nearest one whose channels all differ by `tolerance` at most.

        Raises DataError, naming the colours and their pixels, where there is no such one.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
            raise DataError(
                "is no mask in 8-bit colours", where=where, found=f"{image.dtype}, shape {image.shape}",
                expected="RGB", fix="save it as 8-bit RGB PNG",
            )
        parts = row_bands(np.broadcast_to(image, (*image.shape[:2], 3)), _BAND)
        present, counts = _merge([_count(_codes(part)) for part in parts])
        colours = np.stack([present >> 16, present >> 8 & 255, present & 255], axis=1).astype(np.int32)
        nearest, distance = self._nearest(colours, tolerance)
        if (unknown := nearest < 0).any():
            raise _unknown(where, colours[unknown], counts[unknown], tolerance)
        table = np.empty(1 << 24, np.uint8)  # pages that no colour touches stay virtual
        table[present] = self.values[nearest]
        values = np.concatenate([table[_codes(part)] for part in parts])
        return values, int(counts[distance > 0].sum())

    def _nearest(
        self, colours: npt.NDArray[np.int32], tolerance: int
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int32]]:
        """For each colour (N, 3) the place of the nearest one within the tolerance, -1 for none, and its squared distance."""
        nearest, distance = np.empty(len(colours), np.intp), np.empty(len(colours), np.int32)
        for top in range(0, len(colours), _BLOCK):
            part = slice(top, top + _BLOCK)
            apart = np.abs(colours[part, None] - self.colors.astype(np.int32))
            squares = np.where(apart.max(2) <= tolerance, (apart**2).sum(2), _FAR)
            nearest[part], distance[part] = squares.argmin(1), squares.min(1)
        nearest[distance == _FAR] = -1
        return nearest, distance


def _codes(image: np.ndarray) -> npt.NDArray[np.uint32]:
    codes = image[:, :, 0].astype(np.uint32)
    for channel in (1, 2):
        codes <<= 8
        codes |= image[:, :, channel]
    return codes


def _count(codes: npt.NDArray[np.uint32]) -> CodeCounts:
    """The different codes, and how many pixels have each. Rows are collapsed to runs first: sorting all pixels takes far longer."""
    flat = codes.ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    return _merge([(flat[starts], np.diff(np.append(starts, flat.size)))])


def _merge(counted: list[CodeCounts]) -> CodeCounts:
    """Codes that may come several times, with their counts -> each code once, with the sum."""
    present, inverse = np.unique(np.concatenate([codes for codes, _ in counted]), return_inverse=True)
    counts = np.concatenate([counts for _, counts in counted])
    return present, np.bincount(inverse, counts, len(present)).astype(np.int64)


def _unknown(where: str, colours: np.ndarray, counts: np.ndarray, tolerance: int) -> DataError:
    order = np.argsort(-counts, kind="stable")
    shown = [
        f"{tuple(map(int, colours[k]))} on {counts[k]:,} pixel{'s' if counts[k] > 1 else ''}" for k in order[:_SHOWN]
    ]
    more = f" and {len(order) - _SHOWN} more" if len(order) > _SHOWN else ""
    return DataError(
        "holds colours that are not in the palette", where=where, found=", ".join(shown) + more,
        expected=f"colours of the palette, each channel off by {tolerance} at most",
        fix="add them to the palette, or, where edges are blurred, allow more (--tolerance N)",
    )


def make_palette(entries: list[tuple[str, RGB]], origin: str, where: Path | None = None) -> Palette:
    """A palette of names and colours; DataError where it holds too few or too many classes, or a colour twice."""
    names = list(dict.fromkeys(name for name, _ in entries))
    first = dict(reversed(entries))
    by_colour = {colour: name for name, colour in entries}
    kept = [name for name in names if name.lower() not in IGNORED_NAMES]
    kept = kept if len(kept) > 1 else names
    if not 2 <= len(kept) <= MAX_CLASSES or any(by_colour[colour] != name for name, colour in entries):
        raise DataError(
            "is no palette", where=where or origin, found=", ".join(f"{name} {colour}" for name, colour in entries[:12]) or "nothing",
            expected=f"2 to {MAX_CLASSES} classes, each colour once",
        )
    value = {name: index for index, name in enumerate(kept)} | {name: 255 for name in names if name not in kept}
    table = ClassTable(
        classes=tuple(ClassSpec(name=name, value=value[name], color=first[name]) for name in kept),
        ignore=(255,) if len(kept) < len(names) else (),
    )
    colours = np.array([colour for _, colour in entries], np.uint8)
    return Palette(table, colours, np.array([value[name] for name, _ in entries], np.uint8), origin)

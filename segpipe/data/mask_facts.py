"""Facts about the pixels of one mask file, from which its meaning is judged: values, colours, alpha, and the shape of each value."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from segpipe.data.images.raster import raster_header
from segpipe.errors import DataError

RGB = tuple[int, int, int]

MAX_COLOURS = 64
"""Of a mask with more colours than this, none is listed."""
_MAX_EDGE = 1024
"""Facts are measured on at most this many rows and columns, every n-th of the mask."""
_MAX_SHAPES = 256
"""The shapes of at most this many values are measured, those of the smallest values."""
_THIN_WIDTH = 5
"""A value whose pixels form lines of at most this width, in pixels of the measured mask, is thin."""
_MAX_THICK_SHARE = 0.15


@dataclass(frozen=True)
class ValueShape:
    """The pixels of one value in one mask.

    components: the number of connected components (8 neighbours).
    is_thin: whether they form lines.
    box: first row, first column, last row + 1, last column + 1, as fractions of height and width.
    area: the share of the mask's pixels.
    first: the index of the first pixel in the order of rows.
    """

    components: int
    is_thin: bool
    box: tuple[float, float, float, float]
    area: float
    first: int


@dataclass(frozen=True)
class MaskFacts:
    """The pixels of one mask file.

    dtype: the number type of the file, such as "uint8".
    is_lossy: whether the file is compressed with loss (JPEG).
    size: (height, width) in pixels.
    counts: pixels by value; of channels that differ, by the mean of the channels; empty for values that are not whole numbers.
    spread: the largest difference between the channels of a pixel.
    colours: pixels by colour, for at most `MAX_COLOURS` colours; empty for one channel.
    palette: the colour of each index that occurs, for a palette image.
    alpha: pixels by value of an alpha channel; None without one.
    shares: (smallest, largest, share of the pixels between 0.05 and 0.95), for values that are not whole numbers.
    shapes: the shape of each value except 0.
    """

    dtype: str
    is_lossy: bool
    size: tuple[int, int]
    counts: Counter[int] = field(default_factory=Counter)
    spread: int = 0
    colours: Counter[RGB] = field(default_factory=Counter)
    palette: dict[int, RGB] | None = None
    alpha: Counter[int] | None = None
    shares: tuple[float, float, float] | None = None
    shapes: dict[int, ValueShape] = field(default_factory=dict)


def mask_facts(array: np.ndarray, content: bytes) -> MaskFacts | None:
    """Return the facts about a mask.

    Args:
        array: its decoded pixels, (H, W, C), as `segpipe.data.images.read_stored` returns them; a volume has no facts.
        content: the bytes of its file.
    """
    if array.ndim != 3:
        return None
    palette, alpha, is_lossy = _header_facts(content)
    size = (array.shape[0], array.shape[1])
    step = -(-max(size) // _MAX_EDGE)
    array = array[::step, ::step]
    spread, colours, plane = 0, Counter[RGB](), array[..., 0]
    if array.shape[2] > 1:
        spread, colours, plane = _channel_facts(array)
    if array.dtype.kind == "f" and not _are_whole(plane):
        shares = (float(np.nanmin(plane)), float(np.nanmax(plane)), float(((plane > 0.05) & (plane < 0.95)).mean()))
        return MaskFacts(str(array.dtype), is_lossy, size, shares=shares, alpha=alpha)
    counts = _count(plane)
    used = {index: palette[index] for index in counts if index in palette} if palette else None
    return MaskFacts(
        str(array.dtype), is_lossy, size, counts, spread, colours, used, alpha, shapes=_shapes(plane, sorted(counts))
    )


def _are_whole(plane: np.ndarray) -> bool:
    return bool(np.isfinite(plane).all() and (plane == np.round(plane)).all())


def _count(plane: np.ndarray) -> Counter[int]:
    found, pixels = np.unique(plane, return_counts=True)
    return Counter({int(value): int(n) for value, n in zip(found, pixels, strict=True)})


def _channel_facts(array: np.ndarray) -> tuple[int, Counter[RGB], np.ndarray]:
    """Return the largest difference between channels, the colours (if few), and the mean of the channels."""
    if array.dtype != np.uint8 or array.shape[2] != 3:
        difference = array.max(axis=2).astype(np.float64) - array.min(axis=2)
        return int(min(np.nanmax(difference), 65535)), Counter(), array[..., 0]
    spread = int((array.max(axis=2) - array.min(axis=2)).max())
    codes = array[..., 0].astype(np.uint32) << 16 | array[..., 1].astype(np.uint32) << 8 | array[..., 2]
    found, pixels = np.unique(codes, return_counts=True)
    colours: Counter[RGB] = Counter()
    if len(found) <= MAX_COLOURS:
        colours.update(
            {
                (int(code) >> 16, int(code) >> 8 & 255, int(code) & 255): int(n)
                for code, n in zip(found, pixels, strict=True)
            }
        )
    plane = array[..., 0] if spread == 0 else array.mean(axis=2).round().astype(np.uint8)
    return spread, colours, plane


def _header_facts(content: bytes) -> tuple[dict[int, RGB] | None, Counter[int] | None, bool]:
    """Return the palette, the values of alpha, and whether the file is compressed with loss; from a header, except for alpha."""
    try:
        with raster_header(io.BytesIO(content), "the mask") as image:
            is_lossy = image.format in ("JPEG", "MPO")
            alpha = None
            if image.mode in ("RGBA", "LA", "PA"):
                counts = image.getchannel("A").histogram()
                alpha = Counter({value: n for value, n in enumerate(counts) if n})
            raw = image.getpalette("RGB") if image.mode == "P" else None
    except DataError:
        return None, None, False
    if raw is None:
        return None, alpha, is_lossy
    return {k: (raw[3 * k], raw[3 * k + 1], raw[3 * k + 2]) for k in range(len(raw) // 3)}, alpha, is_lossy


def _shapes(plane: np.ndarray, found: list[int]) -> dict[int, ValueShape]:
    """Return the shape of each value except 0."""
    from scipy.ndimage import find_objects

    height, width = plane.shape
    chosen = [value for value in found if value > 0][:_MAX_SHAPES]
    ranks = np.zeros(65537, np.int32)
    ranks[chosen] = np.arange(1, len(chosen) + 1)
    ranked = ranks[np.clip(plane, 0, 65536).astype(np.int64)]
    shapes = {}
    for value, box in zip(chosen, find_objects(ranked, len(chosen)), strict=True):
        if box is not None:
            rows, columns = box
            region = (ranked[box] == ranks[value]).astype(np.uint8)
            first = int(np.flatnonzero(region[0])[0]) + columns.start + rows.start * width
            edges = (rows.start / height, columns.start / width, rows.stop / height, columns.stop / width)
            components = cv2.connectedComponents(region, connectivity=8)[0] - 1
            shapes[value] = ValueShape(components, _is_thin(region), edges, float(region.sum()) / plane.size, first)
    return shapes


def _is_thin(region: npt.NDArray[np.uint8]) -> bool:
    """Return whether nearly no pixel of a region lies in a square of `_THIN_WIDTH` + 1 pixels that is completely in the region."""
    kernel = np.ones((_THIN_WIDTH + 1, _THIN_WIDTH + 1), np.uint8)
    thick = cv2.morphologyEx(region, cv2.MORPH_OPEN, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return int(thick.sum()) <= _MAX_THICK_SHARE * int(region.sum())


def read_alpha(content: bytes, where: str) -> npt.NDArray[np.uint8]:
    """Return the alpha channel of an image file, (H, W).

    Raises:
        DataError: it has none, or it cannot be decoded.
    """
    with raster_header(io.BytesIO(content), where) as image:
        if image.mode in ("RGBA", "LA", "PA"):
            return np.asarray(image.getchannel("A"))
        mode = image.mode
    raise DataError(
        "has no alpha channel", where=where, found=mode, expected="RGBA or grey with alpha", fix="use another --kind"
    )

"""Connected regions of a mask of classes, 2D or 3D, by its runs: stretches of one value within a row.

A mask has far fewer runs than pixels, and all classes are joined in one go; labelling pixels would take a pass and an array of
labels for each class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segpipe.data.images.statistics import row_bands

MAX_RUNS = 1 << 22
"""Of a mask with more runs (noise, as a rule) the regions are not looked for: it would take gigabytes."""

_BAND = 1 << 20


@dataclass(frozen=True)
class Runs:
    """The runs of a mask, in the order of its pixels: places in the flattened mask where they begin and end, and their values."""

    shape: tuple[int, ...]
    begin: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    value: np.ndarray

    def pixels(self) -> npt.NDArray[np.int64]:
        """How many pixels each value has, by value, up to the largest one."""
        return np.bincount(self.value, weights=self.end - self.begin).astype(np.int64)

    def of(self, values: list[int]) -> Runs:
        """The runs of some values."""
        table = np.zeros(1 << 16, bool)
        table[values] = True
        kept = np.flatnonzero(table[self.value])
        return Runs(self.shape, self.begin[kept], self.end[kept], self.value[kept])


def find_runs(mask: np.ndarray) -> Runs | None:
    """The runs of a mask (H, W) or (D, H, W), uint8 or uint16; None where there are more than `MAX_RUNS`."""
    rows, begun, count, offset = mask.reshape(-1, mask.shape[-1]), [], 0, 0
    for band in row_bands(rows, _BAND):
        new = np.empty(band.shape, bool)
        new[:, 0] = True
        np.not_equal(band[:, 1:], band[:, :-1], out=new[:, 1:])
        begun.append(np.flatnonzero(new) + offset)
        offset, count = offset + band.size, count + len(begun[-1])
        if count > MAX_RUNS:
            return None
    begin = np.concatenate(begun)
    return Runs(mask.shape, begin, np.append(begin[1:], mask.size), rows.reshape(-1)[begin])


def component_sizes(runs: Runs) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The value and the size in pixels of each connected region: pixels of one value that touch by a side, an edge or a corner
    (8 neighbours, in a volume 26).
    """
    steps = [(0, 1)] if len(runs.shape) == 2 else [(0, 1), (1, -1), (1, 0), (1, 1)]
    left, right = (np.concatenate(ends) for ends in zip(*(_touching(runs, *step) for step in steps), strict=True))
    same = runs.value[left] == runs.value[right]
    region = _joined(len(runs.begin), left[same], right[same])
    sizes = np.bincount(region, weights=runs.end - runs.begin, minlength=len(region)).astype(np.int64)
    first = np.flatnonzero(sizes)
    return runs.value[first].astype(np.int64), sizes[first]


def _joined(count: int, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For each of `count` runs the first one that it is linked to, over any number of links left[i] - right[i].

    Union by the smaller number and path halving, for all links at once, until none joins two regions (Shiloach and Vishkin, "An
    O(log n) parallel connectivity algorithm", 1982). `scipy.sparse.csgraph` takes as long, and as long again to be imported as a
    worker needs to start.
    """
    region = np.arange(count)
    while len(left):
        low, high = region[left], region[right]
        apart = low != high
        left, right, low, high = left[apart], right[apart], low[apart], high[apart]
        np.minimum.at(region, np.maximum(low, high), np.minimum(low, high))
        while ((above := region[region]) != region).any():
            region = above
    return region


def _touching(runs: Runs, slices: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of runs that touch, of which the second lies so many slices and rows behind the first."""
    height, width = runs.shape[-2:]
    row = runs.begin // width
    place = row % height + rows
    first = np.flatnonzero((place >= 0) & (place < height))
    shift = (slices * height + rows) * width
    edge = row[first] * width
    low = np.maximum(runs.begin[first] - 1, edge) + shift
    high = np.minimum(runs.end[first], edge + width - 1) + shift
    begin = np.searchsorted(runs.end, low, "right")
    counts = np.searchsorted(runs.begin, high, "right") - begin
    last = np.cumsum(counts)
    return np.repeat(first, counts), np.arange(counts.sum()) + np.repeat(begin - last + counts, counts)

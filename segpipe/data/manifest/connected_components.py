"""Connected components of a mask, 2D or 3D, computed from its runs: stretches of equal values within a row.

A mask has far fewer runs than pixels, and the components of all classes are joined in one pass. Labelling pixels instead would take
one pass and one array of labels for each class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segpipe.data.images.statistics import row_bands

MAX_RUNS = 1 << 22
"""For a mask with more runs (usually noise) no components are computed: it would take gigabytes."""

_BAND_PIXELS = 1 << 20


@dataclass(frozen=True)
class Runs:
    """The runs of a mask, in the order of its pixels.

    Attributes:
        shape: shape of the mask, (H, W) or (D, H, W).
        begin: (n,), index in the flattened mask of the first pixel of each run.
        end: (n,), index one past the last pixel of each run.
        value: (n,), the value of each run, uint8 or uint16.
    """

    shape: tuple[int, ...]
    begin: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    value: np.ndarray

    def count_pixels(self) -> npt.NDArray[np.int64]:
        """Count the pixels of each value, from 0 to the largest value."""
        return np.bincount(self.value, weights=self.end - self.begin).astype(np.int64)

    def with_values(self, values: list[int]) -> Runs:
        """Return only the runs that have one of these values."""
        table = np.zeros(1 << 16, bool)
        table[values] = True
        selected = np.flatnonzero(table[self.value])
        return Runs(self.shape, self.begin[selected], self.end[selected], self.value[selected])


def find_runs(mask: np.ndarray) -> Runs | None:
    """Find the runs of a mask (H, W) or (D, H, W), uint8 or uint16; None if there are more than `MAX_RUNS`."""
    rows = mask.reshape(-1, mask.shape[-1])
    begins: list[np.ndarray] = []
    count, offset = 0, 0
    for band in row_bands(rows, _BAND_PIXELS):
        starts = np.empty(band.shape, bool)
        starts[:, 0] = True
        np.not_equal(band[:, 1:], band[:, :-1], out=starts[:, 1:])
        begins.append(np.flatnonzero(starts) + offset)
        offset, count = offset + band.size, count + len(begins[-1])
        if count > MAX_RUNS:
            return None
    begin = np.concatenate(begins)
    return Runs(mask.shape, begin, np.append(begin[1:], mask.size), rows.reshape(-1)[begin])


def component_sizes(runs: Runs) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Compute the value and the size in pixels of each connected component.

    Pixels of one value are connected if they share a side, an edge or a corner: 8 neighbours in an image, 26 in a volume.

    Returns:
        values: (n,), the value of each component.
        sizes: (n,), its number of pixels.
    """
    steps = [(0, 1)] if len(runs.shape) == 2 else [(0, 1), (1, -1), (1, 0), (1, 1)]
    left, right = (np.concatenate(ends) for ends in zip(*(_touching(runs, *step) for step in steps), strict=True))
    same = runs.value[left] == runs.value[right]
    component = _join(len(runs.begin), left[same], right[same])
    sizes = np.bincount(component, weights=runs.end - runs.begin, minlength=len(component)).astype(np.int64)
    first = np.flatnonzero(sizes)
    return runs.value[first].astype(np.int64), sizes[first]


def _join(count: int, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return for each of `count` runs the first run that it is linked to, over any number of links left[i] - right[i].

    Union by the smaller index with path halving, for all links at once, until no link joins two components (Shiloach and Vishkin,
    "An O(log n) parallel connectivity algorithm", 1982). `scipy.sparse.csgraph` takes as long, and importing it takes as long again
    as starting a worker process.
    """
    component = np.arange(count)
    while len(left):
        low, high = component[left], component[right]
        apart = low != high
        left, right, low, high = left[apart], right[apart], low[apart], high[apart]
        np.minimum.at(component, np.maximum(low, high), np.minimum(low, high))
        while ((parent := component[component]) != component).any():
            component = parent
    return component


def _touching(runs: Runs, slices: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of all pairs of runs that touch, if the second run lies `slices` slices and `rows` rows after the first."""
    height, width = runs.shape[-2:]
    row = runs.begin // width
    target_row = row % height + rows
    first = np.flatnonzero((target_row >= 0) & (target_row < height))
    shift = (slices * height + rows) * width
    edge = row[first] * width
    low = np.maximum(runs.begin[first] - 1, edge) + shift
    high = np.minimum(runs.end[first], edge + width - 1) + shift
    begin = np.searchsorted(runs.end, low, "right")
    counts = np.searchsorted(runs.begin, high, "right") - begin
    last = np.cumsum(counts)
    return np.repeat(first, counts), np.arange(counts.sum()) + np.repeat(begin - last + counts, counts)

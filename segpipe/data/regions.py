"""Connected regions of a mask of classes, 2D or 3D, by its runs: stretches of one value within a row.

A mask has far fewer runs than pixels, and all classes are joined in one go; labelling pixels would take a pass and an array of
labels for each class.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segpipe.data.measure import bands

MAX_RUNS = 1 << 22
"""Of a mask with more runs (noise, as a rule) the regions are not looked for: it would take gigabytes."""

_BAND = 1 << 20


def region_sizes(mask: np.ndarray, values: list[int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
    """The value and the size in pixels of each connected region of `values` in a mask (H, W) or (D, H, W).

    Pixels that touch by a side, an edge or a corner are connected (8 neighbours, in a volume 26). None where there are more
    than `MAX_RUNS` runs.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    runs = _runs(mask)
    if runs is None:
        return None
    lengths = np.diff(runs, append=mask.size)
    found = mask.reshape(-1)[runs]
    wanted = np.flatnonzero(np.isin(found, values))
    if not len(wanted):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    pairs = [_touching(runs, lengths, wanted, mask.shape, step) for step in _steps(mask.ndim)]
    left, right = (np.concatenate(ends) for ends in zip(*pairs, strict=True))
    same = found[left] == found[right]
    links = coo_array((np.ones(int(same.sum()), bool), (left[same], right[same])), shape=(len(runs), len(runs)))
    _, region = connected_components(links, directed=False)
    sizes = np.bincount(region[wanted], weights=lengths[wanted]).astype(np.int64)
    value = np.zeros(len(sizes), np.int64)
    value[region[wanted]] = found[wanted]
    return value[sizes > 0], sizes[sizes > 0]


def _runs(mask: np.ndarray) -> npt.NDArray[np.int64] | None:
    """Where runs begin, as places in the flattened mask."""
    rows, begun, count = mask.reshape(-1, mask.shape[-1]), [], 0
    offset = 0
    for band in bands(rows, _BAND):
        new = np.ones(band.shape, bool)
        np.not_equal(band[:, 1:], band[:, :-1], out=new[:, 1:])
        begun.append(np.flatnonzero(new) + offset)
        offset, count = offset + band.size, count + len(begun[-1])
        if count > MAX_RUNS:
            return None
    return np.concatenate(begun)


def _steps(ndim: int) -> list[tuple[int, int]]:
    """(slices, rows) to the neighbouring rows that come later."""
    return [(0, 1)] if ndim == 2 else [(0, 1), (1, -1), (1, 0), (1, 1)]


def _touching(
    runs: np.ndarray, lengths: np.ndarray, chosen: np.ndarray, shape: tuple[int, ...], step: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """All pairs (chosen run, run in the row that lies `step` away) that touch, as two arrays of places in `runs`."""
    height, width = shape[-2:]
    depth = shape[0] if len(shape) == 3 else 1
    row, first = np.divmod(runs[chosen], width)
    y, z = row % height + step[1], row // height + step[0]
    inside = (y >= 0) & (y < height) & (z < depth)
    chosen, row, first = chosen[inside], (z * height + y)[inside], first[inside]
    low = row * width + np.maximum(first - 1, 0)
    high = row * width + np.minimum(first + lengths[chosen], width - 1)
    begin = np.searchsorted(runs, low, "right") - 1
    counts = np.searchsorted(runs, high, "right") - begin
    ends = np.cumsum(counts)
    return np.repeat(chosen, counts), np.arange(ends[-1] if len(ends) else 0) + np.repeat(begin - ends + counts, counts)

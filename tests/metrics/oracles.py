"""Slow and plain counterparts of segpipe.metrics, written from the definitions, one object and one pixel at a time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segpipe.metrics.instances import InstanceMasks, Overlaps, overlaps


def surface_points(mask: np.ndarray) -> list[tuple[int, ...]]:
    """Pixels with a neighbour along an axis that is not in the mask, or not in the image."""
    points = []
    for place in map(tuple, np.argwhere(mask)):
        for axis, move in itertools.product(range(mask.ndim), (-1, 1)):
            other = list(place)
            other[axis] += move
            if not 0 <= other[axis] < mask.shape[axis] or not mask[tuple(other)]:
                points.append(place)
                break
    return points


def plain_distances(one: np.ndarray, other: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """From each surface pixel of one mask to the nearest of the other: every pair is tried."""
    a, b = (np.array(surface_points(m), float).reshape(-1, one.ndim) * spacing for m in (one, other))
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1)).min(1)


def plain_contour(mask: np.ndarray, width: int) -> np.ndarray:
    """Pixels of a mask with something outside of it in the box of half-width `width` around them."""
    out = np.zeros_like(mask)
    for place in map(tuple, np.argwhere(mask)):
        box = itertools.product(*(range(c - width, c + width + 1) for c in place))
        out[place] = any(
            any(not 0 <= c < size for c, size in zip(near, mask.shape, strict=True)) or not mask[near] for near in box
        )
    return out


def plain_matthews(truth: np.ndarray, prediction: np.ndarray, n_classes: int) -> float:
    """Gorodkin's R_K as what it is: the covariance of two matrices of indicators over the root of their variances."""
    x, y = (m.reshape(-1, 1) == np.arange(n_classes) for m in (truth, prediction))

    def covariance(a: np.ndarray, b: np.ndarray) -> float:
        return float(((a - a.mean(0)) * (b - b.mean(0))).sum())

    spread = covariance(x, x) * covariance(y, y)
    return covariance(x, y) / spread**0.5 if spread > 1e-12 else 0.0


@dataclass
class PlainObject:
    """One object of an image: its pixels, its class, how sure the model is, whether it is a region to ignore."""

    pixels: frozenset[tuple[int, ...]]
    label: int
    score: float = 1.0
    crowd: bool = False


def pixels_of(mask: np.ndarray) -> frozenset[tuple[int, ...]]:
    return frozenset(map(tuple, np.argwhere(mask).tolist()))


def plain_iou(a: PlainObject, b: PlainObject) -> float:
    return len(a.pixels & b.pixels) / len(a.pixels | b.pixels)


def most_matches(truth: list[PlainObject], predicted: list[PlainObject], threshold: float) -> tuple[int, float]:
    """The number of matches and the sum of their IoU: every assignment is tried (small sets only)."""
    if len(truth) > len(predicted):
        truth, predicted = predicted, truth
    best = (0, 0.0)
    for order in itertools.permutations(predicted, len(truth)):
        found = [plain_iou(a, b) for a, b in zip(truth, order, strict=True) if a.label == b.label]
        found = [value for value in found if value > threshold]
        best = max(best, (len(found), sum(found)))
    return best


def plain_ap(
    images: list[tuple[list[PlainObject], list[PlainObject]]],
    label: int,
    threshold: float,
    sizes: tuple[float, float] = (0, 1e10),
) -> tuple[float, float]:
    """COCO's average precision (101 points, interpolated) and recall of one class at one IoU: (nan, nan) without an object."""
    hits: list[tuple[float, bool]] = []
    wanted = 0
    for truth, predicted in images:
        there = [t for t in truth if t.label == label]
        spared = [t.crowd or not sizes[0] <= len(t.pixels) <= sizes[1] for t in there]
        there = [t for s, t in sorted(zip(spared, there, strict=True), key=lambda pair: pair[0])]
        spared.sort()
        wanted += spared.count(False)
        taken = [False] * len(there)
        said = sorted((p for p in predicted if p.label == label), key=lambda p: -p.score)
        for p in said:
            place = _best_place(p, there, spared, taken, threshold)
            if place is not None:
                taken[place] = True
                if not spared[place]:
                    hits.append((p.score, True))
            elif sizes[0] <= len(p.pixels) <= sizes[1]:
                hits.append((p.score, False))
    if not wanted:
        return float("nan"), float("nan")
    return _area_under(hits, wanted)


def _best_place(
    p: PlainObject, there: list[PlainObject], spared: list[bool], taken: list[bool], threshold: float
) -> int | None:
    """The free true object that overlaps most, the later of two alike; those that count before those that are spared."""
    best, place = min(threshold, 1 - 1e-10), None
    for i, t in enumerate(there):
        if taken[i] and not t.crowd:
            continue
        if place is not None and not spared[place] and spared[i]:
            break
        overlap = len(p.pixels & t.pixels) / len(p.pixels) if t.crowd else plain_iou(p, t)
        if overlap >= best:
            best, place = overlap, i
    return place


def _area_under(hits: list[tuple[float, bool]], wanted: int) -> tuple[float, float]:
    ranked = sorted(hits, key=lambda pair: -pair[0])
    right, curve = 0, []
    for rank, (_, hit) in enumerate(ranked, start=1):
        right += hit
        curve.append((right / wanted, right / rank))
    points = [max((p for r, p in curve if r >= level), default=0.0) for level in np.linspace(0, 1, 101)]
    return float(np.mean(points)), right / wanted


def dense(found: Overlaps, shape: tuple[int, int]) -> np.ndarray:
    """IoU of every pair, (true, predicted)."""
    table = np.zeros(shape)
    table[found.true, found.said] = found.iou
    return table


def iou_matrix(truth: InstanceMasks, prediction: InstanceMasks) -> np.ndarray:
    """IoU of every pair, (true, predicted); 0 for a pair of different classes."""
    return dense(overlaps(truth, prediction), (len(truth), len(prediction)))


def pairs_of(iou: np.ndarray) -> Overlaps:
    """A table of IoU, (true, predicted), as pairs."""
    true, said = np.nonzero(iou)
    return Overlaps(true, said, iou[true, said])

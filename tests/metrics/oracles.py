"""Slow and plain counterparts of segpipe.metrics, written from the definitions, one instance and one pixel at a time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segpipe.metrics.instances import InstanceMasks, Overlaps, overlaps


def surface_points(mask: np.ndarray) -> list[tuple[int, ...]]:
    """Return the pixels with a neighbour along an axis that is not in the mask, or not in the image."""
    points = []
    for point in map(tuple, np.argwhere(mask)):
        for axis, move in itertools.product(range(mask.ndim), (-1, 1)):
            other = list(point)
            other[axis] += move
            if not 0 <= other[axis] < mask.shape[axis] or not mask[tuple(other)]:
                points.append(point)
                break
    return points


def plain_distances(one: np.ndarray, other: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Measure from each surface pixel of one mask to the nearest of the other, by trying every pair."""
    a, b = (np.array(surface_points(m), float).reshape(-1, one.ndim) * spacing for m in (one, other))
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1)).min(1)


def plain_contour(mask: np.ndarray, width: int) -> np.ndarray:
    """Return the pixels of a mask that have a pixel outside of it in the box of half-width `width` around them."""
    out = np.zeros_like(mask)
    for point in map(tuple, np.argwhere(mask)):
        box = itertools.product(*(range(c - width, c + width + 1) for c in point))
        out[point] = any(
            any(not 0 <= c < size for c, size in zip(near, mask.shape, strict=True)) or not mask[near] for near in box
        )
    return out


def plain_matthews(truth: np.ndarray, prediction: np.ndarray, n_classes: int) -> float:
    """Compute Gorodkin's R_K by its definition: the covariance of two indicator matrices over the root of their variances."""
    x, y = (m.reshape(-1, 1) == np.arange(n_classes) for m in (truth, prediction))

    def covariance(a: np.ndarray, b: np.ndarray) -> float:
        return float(((a - a.mean(0)) * (b - b.mean(0))).sum())

    spread = covariance(x, x) * covariance(y, y)
    return covariance(x, y) / spread**0.5 if spread > 1e-12 else 0.0


@dataclass
class PlainInstance:
    """One instance of an image: its pixels, class and confidence, and whether it is a region to ignore."""

    pixels: frozenset[tuple[int, ...]]
    label: int
    score: float = 1.0
    crowd: bool = False


def pixels_of(mask: np.ndarray) -> frozenset[tuple[int, ...]]:
    return frozenset(map(tuple, np.argwhere(mask).tolist()))


def plain_iou(a: PlainInstance, b: PlainInstance) -> float:
    return len(a.pixels & b.pixels) / len(a.pixels | b.pixels)


def most_matches(truth: list[PlainInstance], predicted: list[PlainInstance], threshold: float) -> tuple[int, float]:
    """Return the number of matches and the sum of their IoU, by trying every assignment (small sets only)."""
    if len(truth) > len(predicted):
        truth, predicted = predicted, truth
    best = (0, 0.0)
    for order in itertools.permutations(predicted, len(truth)):
        values = [plain_iou(a, b) for a, b in zip(truth, order, strict=True) if a.label == b.label]
        values = [value for value in values if value > threshold]
        best = max(best, (len(values), sum(values)))
    return best


def plain_ap(
    images: list[tuple[list[PlainInstance], list[PlainInstance]]],
    label: int,
    threshold: float,
    sizes: tuple[float, float] = (0, 1e10),
) -> tuple[float, float]:
    """Compute COCO's AP (101 points, interpolated) and recall of one class at one IoU; (nan, nan) without true instances."""
    hits: list[tuple[float, bool]] = []
    n_true = 0
    for truth, predicted in images:
        of_class = [t for t in truth if t.label == label]
        spared = [t.crowd or not sizes[0] <= len(t.pixels) <= sizes[1] for t in of_class]
        of_class = [t for s, t in sorted(zip(spared, of_class, strict=True), key=lambda pair: pair[0])]
        spared.sort()
        n_true += spared.count(False)
        taken = [False] * len(of_class)
        ranked = sorted((p for p in predicted if p.label == label), key=lambda p: -p.score)
        for p in ranked:
            index = _best_match(p, of_class, spared, taken, threshold)
            if index is not None:
                taken[index] = True
                if not spared[index]:
                    hits.append((p.score, True))
            elif sizes[0] <= len(p.pixels) <= sizes[1]:
                hits.append((p.score, False))
    if not n_true:
        return float("nan"), float("nan")
    return _area_under(hits, n_true)


def _best_match(
    p: PlainInstance, truth: list[PlainInstance], spared: list[bool], taken: list[bool], threshold: float
) -> int | None:
    """Return the free true instance that overlaps most, the later of two equal ones; those that count before those that are spared."""
    best, index = min(threshold, 1 - 1e-10), None
    for i, t in enumerate(truth):
        if taken[i] and not t.crowd:
            continue
        if index is not None and not spared[index] and spared[i]:
            break
        overlap = len(p.pixels & t.pixels) / len(p.pixels) if t.crowd else plain_iou(p, t)
        if overlap >= best:
            best, index = overlap, i
    return index


def _area_under(hits: list[tuple[float, bool]], n_true: int) -> tuple[float, float]:
    ranked = sorted(hits, key=lambda pair: -pair[0])
    right, curve = 0, []
    for rank, (_, hit) in enumerate(ranked, start=1):
        right += hit
        curve.append((right / n_true, right / rank))
    points = [max((p for r, p in curve if r >= level), default=0.0) for level in np.linspace(0, 1, 101)]
    return float(np.mean(points)), right / n_true


def dense(pairs: Overlaps, shape: tuple[int, int]) -> np.ndarray:
    """Return the IoU of every pair as a table, (true, predicted)."""
    table = np.zeros(shape)
    table[pairs.true, pairs.predicted] = pairs.iou
    return table


def iou_matrix(truth: InstanceMasks, prediction: InstanceMasks) -> np.ndarray:
    """Compute the IoU of every pair, (true, predicted); 0 for a pair of different classes."""
    return dense(overlaps(truth, prediction), (len(truth), len(prediction)))


def pairs_of(iou: np.ndarray) -> Overlaps:
    """Return a table of IoU, (true, predicted), as pairs."""
    true, predicted = np.nonzero(iou)
    return Overlaps(true, predicted, iou[true, predicted])

"""Boundaries compared: boundary IoU, Hausdorff 95, average symmetric surface distance and normalised surface Dice.

Masks are 2D (H, W) or 3D (D, H, W). Lengths are in the unit of `spacing`, the size of a pixel along each axis: in mm if the spacing is
in mm, in pixels without a spacing. The surface of a mask consists of its pixels that have a neighbour along an axis outside of it; the
edge of the image counts as outside. Distances are measured between the centres of pixels.

Empty masks, by class: if both masks are empty, a score does not exist (NaN). If one of them is, it is the worst possible value: for a
distance the diagonal of the image, which is longer than any distance in it, and for an overlap 0. So a model cannot gain by leaving
out an instance. Pixels whose truth is `IGNORE` are removed from both masks. Sources: docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.labels import Labelling, labelling_of
from segpipe.metrics.counting import Counts, Values
from segpipe.samples import IGNORE

Mask = npt.NDArray[np.bool_]

_CONTOUR_SHARE = 0.02
"""Width of the band of boundary IoU, as a share of the image's diagonal, as in the paper."""


@dataclass(frozen=True)
class SurfaceDistances:
    """The distance from each surface pixel of one mask to the nearest surface pixel of the other, in no order.

    Attributes:
        of_prediction: (surface pixels of the prediction,), distances to the truth.
        of_truth: (surface pixels of the truth,), distances to the prediction. If one of the masks is empty, all distances of the other
            are `worst`; if both are, both arrays are empty.
        worst: the diagonal of the image.
    """

    of_prediction: Values
    of_truth: Values
    worst: float

    def hausdorff(self, percentile: float = 95.0) -> float:
        """Compute the larger of the two directed percentiles (linear interpolation): HD95; for 100, the Hausdorff distance."""
        if not self._both:
            return self._missed(self.worst)
        return float(max(np.percentile(side, percentile) for side in (self.of_prediction, self.of_truth)))

    def average(self) -> float:
        """Compute the average symmetric surface distance: the mean over the surface pixels of both masks together."""
        if not self._both:
            return self._missed(self.worst)
        total = self.of_prediction.sum() + self.of_truth.sum()
        return float(total / (self.of_prediction.size + self.of_truth.size))

    def dice(self, tolerance: float) -> float:
        """Compute the normalised surface Dice: the share of both surfaces that lies within `tolerance` (same unit) of the other."""
        if not self._both:
            return self._missed(0.0)
        near = sum(int(np.count_nonzero(side <= tolerance)) for side in (self.of_prediction, self.of_truth))
        return near / (self.of_prediction.size + self.of_truth.size)

    @property
    def _both(self) -> bool:
        return bool(self.of_prediction.size and self.of_truth.size)

    def _missed(self, worst: float) -> float:
        return worst if self.of_prediction.size or self.of_truth.size else float("nan")


def surface_distances(truth: Mask, prediction: Mask, spacing: Sequence[float] | None = None) -> SurfaceDistances:
    """Measure the distances between the surfaces of two masks.

    Args:
        truth: (H, W) or (D, H, W), bool.
        prediction: bool, of the same shape.
        spacing: the size of a pixel along each axis; None measures in pixels.

    Raises:
        ValueError: shapes differ, masks are not bool, or the spacing does not fit.
    """
    from scipy.spatial import cKDTree

    step = _pixel_size(truth, prediction, spacing)
    worst = float(np.linalg.norm(np.array(truth.shape) * step))
    box = _bounding_box(truth | prediction)
    true_points, predicted_points = (np.argwhere(_surface(mask[box])) * step for mask in (truth, prediction))
    if not (len(true_points) and len(predicted_points)):
        return SurfaceDistances(np.full(len(predicted_points), worst), np.full(len(true_points), worst), worst)
    # A search tree visits surface pixels only; a distance transform would visit all pixels between them.
    of_prediction = cKDTree(true_points).query(predicted_points)[0]
    return SurfaceDistances(of_prediction, cKDTree(predicted_points).query(true_points)[0], worst)


SURFACE_SCORES = ("hd95", "assd", "nsd")
"""Hausdorff 95, average symmetric surface distance (lengths) and normalised surface Dice (0..1)."""


def surface_scores(
    truth: npt.NDArray[np.uint8],
    prediction: npt.NDArray[np.uint8],
    classes: int | Labelling,
    tolerance: float,
    spacing: Sequence[float] | None = None,
) -> Values:
    """Compute the surface scores of each class.

    Args:
        truth: (H, W) or (D, H, W), uint8 labels and `IGNORE`.
        prediction: uint8 labels, of the same shape.
        classes: the meaning of the labels, or the number of class ids.
        tolerance: of the normalised surface Dice, in the unit of `spacing`.
        spacing: the size of a pixel along each axis; None measures in pixels.

    Returns:
        (3, n_classes), `SURFACE_SCORES`; NaN for a class that is in neither mask.

    Raises:
        ValueError: shapes differ, or the spacing does not fit.
    """
    rows = []
    for true_mask, predicted_mask in _class_masks(truth, prediction, classes):
        distances = surface_distances(true_mask, predicted_mask, spacing)
        rows.append((distances.hausdorff(), distances.average(), distances.dice(tolerance)))
    return np.array(rows, np.float64).reshape(-1, 3).T


def contour_width(shape: Sequence[int], spacing: Sequence[float] | None = None) -> float:
    """Return the width of the band that boundary IoU compares: 2 % of the image's diagonal, at least one pixel.

    Args:
        shape: (H, W) or (D, H, W) of the image.
        spacing: the size of a pixel along each axis; without it the width is rounded to whole pixels, as in the authors' code.
    """
    if spacing is None:
        return float(max(1, round(_CONTOUR_SHARE * float(np.linalg.norm(shape)))))
    return max(float(min(spacing)), _CONTOUR_SHARE * float(np.linalg.norm(np.multiply(shape, spacing))))


def contour(mask: Mask, width: float, spacing: Sequence[float] | None = None) -> Mask:
    """Return the pixels of a mask that are within `width` of its outside along the axes (a box, not a ball).

    Surface pixels are always included, even if the width is smaller than the spacing.

    Args:
        mask: (H, W) or (D, H, W), bool.
        width: of the band, in the unit of `spacing`.
        spacing: the size of a pixel along each axis; None measures in pixels.

    Returns:
        bool, of the same shape.
    """
    from scipy.ndimage import minimum_filter1d

    step = _pixel_size(mask, mask, spacing)
    band = np.zeros_like(mask)
    box = _bounding_box(mask)
    inside = np.pad(mask[box].astype(np.uint8), 1)  # pixels beyond the box, or the image, are outside
    for axis, size in enumerate(step):
        reach = min(max(1, int(width / size + 1e-9)), inside.shape[axis])
        inside = minimum_filter1d(inside, 2 * reach + 1, axis=axis, mode="constant", cval=0)
    band[box] = mask[box] & (inside[(slice(1, -1),) * mask.ndim] == 0)
    return band


def boundary_tallies(
    truth: npt.NDArray[np.uint8],
    prediction: npt.NDArray[np.uint8],
    classes: int | Labelling,
    width: float | None = None,
    spacing: Sequence[float] | None = None,
) -> Counts:
    """Count the pixels of the bands along the contours of each class.

    `per_class("iou", ...)` of the counts is boundary IoU, of one image or of the sum over a dataset.

    Args:
        truth: (H, W) or (D, H, W), uint8 labels and `IGNORE`.
        prediction: uint8 labels, of the same shape.
        classes: the meaning of the labels, or the number of class ids.
        width: of the band; None takes `contour_width`.
        spacing: the size of a pixel along each axis; None measures in pixels.

    Returns:
        (3, n_classes), `Tallies`: pixels in both bands, in that of the truth, in that of the prediction.
    """
    width = contour_width(truth.shape, spacing) if width is None else width
    rows = []
    for pair in _class_masks(truth, prediction, classes):
        true_band, predicted_band = (contour(mask, width, spacing) for mask in pair)
        rows.append([np.count_nonzero(band) for band in (true_band & predicted_band, true_band, predicted_band)])
    return np.array(rows, np.int64).T


def _class_masks(truth: npt.NDArray[np.uint8], prediction: npt.NDArray[np.uint8], classes: int | Labelling) -> Any:
    """Yield the true and the predicted mask of each class, without ignored pixels."""
    if truth.shape != prediction.shape:
        raise ValueError(f"truth has shape {truth.shape}, prediction {prediction.shape}")
    labelling = labelling_of(classes)
    counted = truth != IGNORE
    indices = range(labelling.n_classes)
    return ((labelling.where(truth, index), labelling.where(prediction, index) & counted) for index in indices)


def _pixel_size(truth: Mask, prediction: Mask, spacing: Sequence[float] | None) -> Values:
    """Check masks and spacing; return the size of a pixel along each axis."""
    if truth.shape != prediction.shape:
        raise ValueError(f"truth has shape {truth.shape}, prediction {prediction.shape}")
    if truth.dtype != np.bool_ or prediction.dtype != np.bool_:
        raise ValueError(f"masks are bool, found {truth.dtype} and {prediction.dtype}")
    step = np.ones(truth.ndim) if spacing is None else np.asarray(spacing, np.float64)
    if step.shape != (truth.ndim,) or not (step > 0).all():
        raise ValueError(
            f"spacing {spacing} does not fit a mask of shape {truth.shape}; expected a positive length for each axis"
        )
    return step


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    """Return the smallest box that contains every pixel of a mask; an empty box for an empty mask."""
    axes = range(mask.ndim)
    spans = [np.flatnonzero(mask.any(axis=tuple(a for a in axes if a != axis))) for axis in axes]
    return tuple(slice(int(s[0]), int(s[-1]) + 1) if s.size else slice(0, 0) for s in spans)


def _surface(mask: Mask) -> Mask:
    """Return the pixels of a mask that have a neighbour along an axis outside of it, or are at the edge of the array."""
    inner = mask.copy()
    for axis in range(mask.ndim):
        line = np.moveaxis(mask, axis, 0)
        inner_line = np.moveaxis(inner, axis, 0)
        inner_line[1:] &= line[:-1]
        inner_line[:-1] &= line[1:]
        inner_line[:1] = False
        inner_line[-1:] = False
    return mask & ~inner

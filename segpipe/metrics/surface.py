"""Boundaries compared: boundary IoU, Hausdorff 95, average symmetric surface distance and normalised surface Dice.

Masks are 2D (H, W) or 3D (D, H, W). Lengths are in the unit of `spacing`, the size of a pixel along each axis: mm where it
is given in mm, pixels where it is left out. The surface of a mask is its pixels that have a neighbour along an axis outside
of it; the edge of the image counts as outside. Distances run between centres of pixels.

Empty masks, by class: in neither mask, a score does not exist (NaN). In one of them, it is the worst there is: the image's
diagonal for a distance, which no two surfaces in it can be apart, and 0 for an overlap. So a model can't gain by leaving out
an object. Pixels whose truth is `IGNORE` are taken out of both masks. Sources: docs/metrics.md.
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
"""Width of the band of boundary IoU, as a share of the image's diagonal: the paper's choice."""


@dataclass(frozen=True)
class SurfaceDistances:
    """From each surface pixel of one mask to the nearest surface pixel of the other, in no order.

    of_prediction: (surface pixels of the prediction,), to the truth. of_truth: the other way round. Both are empty where both
    masks are; where one mask is empty, the other's distances are `worst`, the diagonal of the image.
    """

    of_prediction: Values
    of_truth: Values
    worst: float

    def hausdorff(self, percentile: float = 95.0) -> float:
        """The larger of the two directed percentiles (interpolated linearly): HD95; of 100, the Hausdorff distance."""
        if not self._both:
            return self._missed(self.worst)
        return float(max(np.percentile(side, percentile) for side in (self.of_prediction, self.of_truth)))

    def average(self) -> float:
        """Average symmetric surface distance: the mean over the surface pixels of both masks together."""
        if not self._both:
            return self._missed(self.worst)
        total = self.of_prediction.sum() + self.of_truth.sum()
        return float(total / (self.of_prediction.size + self.of_truth.size))

    def dice(self, tolerance: float) -> float:
        """Normalised surface Dice: the share of both surfaces that lies within `tolerance` (same unit) of the other."""
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
    """Distances between the surfaces of two masks, bool, 2D or 3D, of the same shape.

    Raises ValueError where shapes differ, masks are not bool or spacing does not fit.
    """
    from scipy.spatial import cKDTree

    step = _checked(truth, prediction, spacing)
    worst = float(np.linalg.norm(np.array(truth.shape) * step))
    box = _bounding_box(truth | prediction)
    there, said = (np.argwhere(_surface(m[box])) * step for m in (truth, prediction))
    if not (len(there) and len(said)):
        return SurfaceDistances(np.full(len(said), worst), np.full(len(there), worst), worst)
    # A search tree looks at surfaces alone, a distance transform at all that lies between them.
    return SurfaceDistances(cKDTree(there).query(said)[0], cKDTree(said).query(there)[0], worst)


SURFACE_SCORES = ("hd95", "assd", "nsd")
"""Hausdorff 95, average symmetric surface distance (lengths) and normalised surface Dice (0..1)."""


def surface_scores(
    truth: npt.NDArray[np.uint8],
    prediction: npt.NDArray[np.uint8],
    classes: int | Labelling,
    tolerance: float,
    spacing: Sequence[float] | None = None,
) -> Values:
    """(3, n_classes): `SURFACE_SCORES` of each class of two label arrays, (H, W) or (D, H, W), uint8, with `IGNORE` in the truth;
    NaN where a class is in neither. classes: what labels mean, or how many class ids there are."""
    rows = []
    for there, said in _class_masks(truth, prediction, classes):
        found = surface_distances(there, said, spacing)
        rows.append((found.hausdorff(), found.average(), found.dice(tolerance)))
    return np.array(rows, np.float64).reshape(-1, 3).T


def contour_width(shape: Sequence[int], spacing: Sequence[float] | None = None) -> float:
    """The width of the band that boundary IoU looks at: 2 % of the image's diagonal, at least a pixel.

    Without `spacing` it is a whole number of pixels, rounded, as in the authors' code.
    """
    if spacing is None:
        return float(max(1, round(_CONTOUR_SHARE * float(np.linalg.norm(shape)))))
    return max(float(min(spacing)), _CONTOUR_SHARE * float(np.linalg.norm(np.multiply(shape, spacing))))


def contour(mask: Mask, width: float, spacing: Sequence[float] | None = None) -> Mask:
    """The pixels of a mask that are within `width` of its outside along the axes (a box, not a ball), bool.

    Surface pixels are always in it, however small the width is beside the spacing.
    """
    from scipy.ndimage import minimum_filter1d

    step = _checked(mask, mask, spacing)
    band = np.zeros_like(mask)
    box = _bounding_box(mask)
    inside = np.pad(mask[box].astype(np.uint8), 1)  # what lies beyond the box, or the image, is outside
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
    """Pixels of the bands along the contours of each class: (3, n_classes) `Tallies` (in both bands, in the truth's, in the
    prediction's). `per_class("iou", ...)` of them is boundary IoU, of an image or of their sum over a dataset.

    classes: as in `surface_scores`. width: of the band; None takes `contour_width`.
    """
    width = contour_width(truth.shape, spacing) if width is None else width
    rows = []
    for pair in _class_masks(truth, prediction, classes):
        there, said = (contour(mask, width, spacing) for mask in pair)
        rows.append([np.count_nonzero(m) for m in (there & said, there, said)])
    return np.array(rows, np.int64).T


def _class_masks(truth: npt.NDArray[np.uint8], prediction: npt.NDArray[np.uint8], classes: int | Labelling) -> Any:
    if truth.shape != prediction.shape:
        raise ValueError(f"truth has shape {truth.shape}, prediction {prediction.shape}")
    told = labelling_of(classes)
    counted = truth != IGNORE
    return ((told.where(truth, index), told.where(prediction, index) & counted) for index in range(told.n_classes))


def _checked(truth: Mask, prediction: Mask, spacing: Sequence[float] | None) -> Values:
    """The size of a pixel along each axis."""
    if truth.shape != prediction.shape:
        raise ValueError(f"truth has shape {truth.shape}, prediction {prediction.shape}")
    if truth.dtype != np.bool_ or prediction.dtype != np.bool_:
        raise ValueError(f"masks are bool, found {truth.dtype} and {prediction.dtype}")
    step = np.ones(truth.ndim) if spacing is None else np.asarray(spacing, np.float64)
    if step.shape != (truth.ndim,) or not (step > 0).all():
        raise ValueError(
            f"spacing {spacing} does not fit a mask of shape {truth.shape}: a positive length for each axis"
        )
    return step


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    """The smallest box that holds every pixel of a mask; of an empty mask, an empty box."""
    axes = range(mask.ndim)
    spans = [np.flatnonzero(mask.any(axis=tuple(a for a in axes if a != axis))) for axis in axes]
    return tuple(slice(int(s[0]), int(s[-1]) + 1) if s.size else slice(0, 0) for s in spans)


def _surface(mask: Mask) -> Mask:
    """Pixels of a mask with a neighbour along an axis outside of it, or at the edge of the array."""
    inner = mask.copy()
    for axis in range(mask.ndim):
        line = np.moveaxis(mask, axis, 0)
        kept = np.moveaxis(inner, axis, 0)
        kept[1:] &= line[:-1]
        kept[:-1] &= line[1:]
        kept[:1] = False
        kept[-1:] = False
    return mask & ~inner

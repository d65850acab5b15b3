"""Clean up the class ids that a network predicts: shift decision thresholds and remove small regions.

A hole in a region is a small region of the class that shows through it, so holes and specks are handled alike: both are connected
regions with too few pixels.
"""

from __future__ import annotations

import math
import operator

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from segpipe.samples import ClassTable

ClassIds = npt.NDArray[np.uint8]


class Cleaning(BaseModel):
    """Settings for cleaning up predicted class ids, as stored in segmenter.json.

    `segpipe.training.finishing.cleaning_search` chooses the values on the validation split.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    threshold: float | None = Field(None, gt=0, lt=1)
    """For two classes: the probability from which on a pixel gets the second class; None means 0.5."""
    shifts: tuple[float, ...] = Field((), exclude_if=operator.not_)
    """For more classes: an offset that is added to each class's logit, by class id; () means none."""
    least: tuple[int, ...] = ()
    """Minimum size of a region in pixels, by class id; smaller regions get the class of the nearest remaining pixels. () means none."""

    @property
    def logit_offsets(self) -> tuple[float, ...]:
        """Offsets for the logits, by class id, after which each pixel gets the class with the largest logit; () means none."""
        if self.threshold is None:
            return self.shifts
        return (0.0, math.log((1 - self.threshold) / self.threshold))

    def in_words(self, classes: ClassTable) -> str:
        """Describe the settings for users."""
        sentences = []
        if self.threshold is not None:
            sentences.append(f"{classes.names[1]} if its probability is at least {self.threshold:g}")
        if self.shifts:
            low, high = min(self.shifts), max(self.shifts)
            names = [classes.names[self.shifts.index(shift)] for shift in (low, high)]
            sentences.append(
                f"rare classes predicted less often (logits shifted by {low:+.2f} for {names[0]} to {high:+.2f} for {names[1]})"
            )
        small_regions = [f"{name} under {n} pixels" for name, n in zip(classes.names, self.least, strict=False) if n]
        if small_regions:
            sentences.append(f"no regions of {', '.join(small_regions)}")
        return "; ".join(sentences)


def remove_small_regions(class_ids: ClassIds, min_sizes: tuple[int, ...]) -> ClassIds:
    """Replace small regions by the class of the nearest remaining pixels.

    Args:
        class_ids: (H, W) or (D, H, W), uint8.
        min_sizes: Minimum size of a region in pixels, by class id; () for none.

    Returns:
        Class ids of the same shape. They are returned unchanged if no pixel would remain.
    """
    min_size_of = np.zeros(256, np.int32)
    min_size_of[: len(min_sizes)] = min_sizes
    if not min_size_of.any():
        return class_ids
    return fill_from_nearest(class_ids, region_sizes(class_ids, min_size_of > 1) < min_size_of[class_ids])


def region_sizes(class_ids: ClassIds, measured: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Compute the size of the region that each pixel belongs to.

    A region is a connected set of pixels of one class; pixels that touch at a corner are connected.

    Args:
        class_ids: (H, W) or (D, H, W), uint8.
        measured: (256,), the classes whose regions are measured.

    Returns:
        Number of pixels, shaped as `class_ids`, int32; the largest int32 for classes that are not measured.
    """
    sizes = np.full(class_ids.shape, np.iinfo(np.int32).max, np.int32)
    for label in np.unique(class_ids):
        if measured[label]:
            mask = class_ids == label
            regions, areas = _connected_regions(mask)
            sizes[mask] = areas[regions[mask]]
    return sizes


def fill_from_nearest(class_ids: ClassIds, removed: npt.NDArray[np.bool_]) -> ClassIds:
    """Give each removed pixel the class of the nearest remaining pixel.

    Args:
        class_ids: (H, W) or (D, H, W), uint8.
        removed: The pixels to replace, shaped as `class_ids`.

    Returns:
        Class ids of the same shape. They are returned unchanged if all pixels are removed, or none.
    """
    if not removed.any() or removed.all():
        return class_ids
    filled = class_ids.copy()
    filled[removed] = _nearest_classes(class_ids, removed)
    return filled


def _connected_regions(mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Number the regions of a mask from 1 (0 outside), and count the pixels of each number."""
    if mask.ndim == 2:  # several times faster than scipy
        import cv2

        count, regions = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    else:
        from scipy import ndimage

        regions, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    return regions, np.bincount(regions.reshape(-1), minlength=count)


def _nearest_classes(class_ids: ClassIds, removed: npt.NDArray[np.bool_]) -> ClassIds:
    """Return the class of the nearest remaining pixel for each removed one. In images, distances are exact to a few percent."""
    if class_ids.ndim == 2:
        import cv2

        _, nearest = cv2.distanceTransformWithLabels(
            removed.view(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        classes = np.zeros(int(nearest.max()) + 1, np.uint8)
        classes[nearest[~removed]] = class_ids[~removed]
        return classes[nearest[removed]]
    from scipy import ndimage

    indices = ndimage.distance_transform_edt(removed, return_distances=False, return_indices=True)
    return class_ids[tuple(axis[removed] for axis in indices)]

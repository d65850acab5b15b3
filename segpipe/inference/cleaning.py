"""What is mended in class ids after the network: where the borders between classes lie, and specks and holes.

A hole is a speck of the class that shows through it, so both are one thing: a connected region with too few pixels.
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
    """How a prediction is mended, as segmenter.json carries it; `training.cleaning` chooses it on the validation split."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    threshold: float | None = Field(None, gt=0, lt=1)
    """Of two classes: the probability from which on a pixel is given to the second; None stands for 0.5."""
    shifts: tuple[float, ...] = Field((), exclude_if=operator.not_)
    """Of more classes, by class id: what its logit is raised by; () for nothing."""
    least: tuple[int, ...] = ()
    """By class id: a region with fewer pixels than this goes to the class of the nearest pixels that stay; () for no class."""

    @property
    def raised(self) -> tuple[float, ...]:
        """What logits are raised by, by class id, so that the largest one says which class a pixel is given; () for nothing."""
        if self.threshold is None:
            return self.shifts
        return (0.0, math.log((1 - self.threshold) / self.threshold))

    def in_words(self, classes: ClassTable) -> str:
        """What is done, for people."""
        said = [f"{classes.names[1]} from a probability of {self.threshold:g} on"] if self.threshold is not None else []
        if self.shifts:
            low, high = (classes.names[self.shifts.index(end(self.shifts))] for end in (min, max))
            said.append(
                f"rare classes said less often (logits from {min(self.shifts):+.2f} for {low} to {max(self.shifts):+.2f} for {high})"
            )
        specks = [f"{name} under {n} pixels" for name, n in zip(classes.names, self.least, strict=False) if n]
        return "; ".join(said + ([f"no regions of {', '.join(specks)}"] if specks else []))


def remove_small_regions(class_ids: ClassIds, least: tuple[int, ...]) -> ClassIds:
    """(H, W) or (D, H, W), uint8, by `Cleaning.least`. As it is where no pixel would stay."""
    limits = np.zeros(256, np.int32)
    limits[: len(least)] = least
    if not limits.any():
        return class_ids
    return fill_from_nearest(class_ids, region_sizes(class_ids, limits > 1) < limits[class_ids])


def region_sizes(class_ids: ClassIds, looked_at: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Pixels of the region that each pixel belongs to; pixels touch at corners, too.

    class_ids: (H, W) or (D, H, W). looked_at: (256,); a class that is not is taken for one region without an end.
    """
    sizes = np.full(class_ids.shape, np.iinfo(np.int32).max, np.int32)
    for label in np.unique(class_ids):
        if looked_at[label]:
            mask = class_ids == label
            regions, areas = _regions(mask)
            sizes[mask] = areas[regions[mask]]
    return sizes


def fill_from_nearest(class_ids: ClassIds, gone: npt.NDArray[np.bool_]) -> ClassIds:
    """The class ids with those of `gone` taken from the nearest other pixel; as they are where there is none, or none goes."""
    if not gone.any() or gone.all():
        return class_ids
    mended = class_ids.copy()
    mended[gone] = _nearest(class_ids, gone)
    return mended


def _regions(mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Regions numbered from 1, and the pixels of each number, 0 for what is in none."""
    if mask.ndim == 2:  # several times as fast as scipy
        import cv2

        count, regions = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    else:
        from scipy import ndimage

        regions, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    return regions, np.bincount(regions.reshape(-1), minlength=count)


def _nearest(class_ids: ClassIds, gone: npt.NDArray[np.bool_]) -> ClassIds:
    """For each pixel that goes, the class of the nearest that stays (of an image, to within a few percent of the distance)."""
    if class_ids.ndim == 2:
        import cv2

        _, owner = cv2.distanceTransformWithLabels(gone.view(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
        classes = np.zeros(int(owner.max()) + 1, np.uint8)
        classes[owner[~gone]] = class_ids[~gone]
        return classes[owner[gone]]
    from scipy import ndimage

    places = ndimage.distance_transform_edt(gone, return_distances=False, return_indices=True)
    return class_ids[tuple(axis[gone] for axis in places)]

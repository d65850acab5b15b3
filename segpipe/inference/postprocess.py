"""Divide the classes that a semantic model predicts into instances.

- `components`: each connected region of a class is an instance.
- `watershed`: regions are also cut at their waists. The distance to the border is flooded from its maxima (Vincent, Soille 1991);
  maxima that are less than `h` above the saddle towards a higher one are merged with it.
- `distance`: floods a distance that the network has learned (`segpipe.training.sampling.distance`) instead, which falls between instances
  even if the mask has no waist there.
- `detections`: keeps the instances of a detector whose scores are high enough.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from segpipe.samples import Instances

MAX_PIXELS = 1 << 24
"""Classes of larger images are not divided into instances, which would take 40 bytes per pixel."""
Method = Literal["components", "watershed", "distance", "detections"]


class Postprocess(BaseModel):
    """Settings for finding instances, as stored in segmenter.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    method: Method
    h: float = Field(1.0, ge=0)
    """Depth by which the distance to the border falls between two instances: in pixels (watershed), or as a share of the largest distance
    (distance)."""
    min_size: int = Field(0, ge=0)
    """Smaller instances, in pixels, are dropped."""
    min_score: float = Field(0.0, ge=0, le=1)
    """Instances with a lower score are dropped."""
    together: tuple[tuple[int, ...], ...] = ()
    """Groups of classes that form instances together, for example the nucleus and the cytoplasm of a cell: there is no border between
    them. The class of such an instance is the one that most of its pixels have. Classes that are in no group form instances alone."""


def separate(
    class_ids: npt.NDArray[np.uint8],
    probabilities: npt.NDArray[np.float32],
    settings: Postprocess,
    distance: npt.NDArray[np.float32] | None = None,
) -> Instances:
    """Divide a semantic prediction into instances, class by class; class 0 is the background.

    The score of an instance is the mean probability, over its pixels, of its class and those that form instances with it. If there are
    more than `Instances.MAX_COUNT`, the largest are kept. Takes about 40 bytes per pixel.

    Args:
        class_ids: (H, W) or (D, H, W), uint8.
        probabilities: (n_classes, *shape), float32, 0..1.
        settings: Method and thresholds.
        distance: Learned distance to the border, (*shape), float32, 0..1; needed for the method `distance`.
    """
    ids, classes = _split_regions(class_ids, settings, distance)
    total_probability = np.zeros(len(classes) + 1)
    for group in _class_groups(class_ids, settings):
        mask = np.isin(class_ids, group)
        total_probability += np.bincount(ids[mask], probabilities[list(group)].sum(0)[mask], len(classes) + 1)
    areas = np.bincount(ids.reshape(-1), minlength=len(classes) + 1)[1:]
    return select_instances(ids, classes, total_probability[1:] / np.maximum(areas, 1), areas, settings)


def is_selected(
    areas: npt.NDArray[np.int64], scores: npt.NDArray[np.float64], settings: Postprocess
) -> npt.NDArray[np.bool_]:
    """Return for each instance whether `select_instances` keeps it.

    Args:
        areas: Number of pixels of each instance, (n,).
        scores: Score of each instance, (n,), 0..1.
        settings: The minimum size and score.

    Returns:
        (n,), bool.
    """
    keep: npt.NDArray[np.bool_] = (areas >= max(1, settings.min_size)) & (scores >= settings.min_score)
    if keep.sum() > Instances.MAX_COUNT:
        keep &= areas > np.partition(areas[keep], -Instances.MAX_COUNT - 1)[-Instances.MAX_COUNT - 1]
    return keep


def select_instances(
    ids: npt.NDArray[np.int32],
    classes: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float64],
    areas: npt.NDArray[np.int64],
    settings: Postprocess,
) -> Instances:
    """Keep the instances whose size and score are high enough, at most `Instances.MAX_COUNT`.

    Args:
        ids: The instance of each pixel, (H, W) or (D, H, W): 1 .. n, 0 for none.
        classes: Class of each instance, (n,), instance 1 first.
        scores: Score of each instance, (n,), 0..1.
        areas: Number of pixels of each instance, (n,).
        settings: The minimum size and score.
    """
    keep = is_selected(areas, scores, settings)
    new_ids = np.zeros(len(classes) + 1, np.int32)
    new_ids[1:][keep] = np.arange(1, keep.sum() + 1)
    return Instances.from_map(new_ids[ids], classes[keep], scores[keep])


def _split_regions(
    class_ids: npt.NDArray[np.uint8], settings: Postprocess, distance: npt.NDArray[np.float32] | None
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Number the parts of all classes from 1, and return the class of each."""
    from scipy import ndimage

    assert distance is not None or settings.method != "distance", "a network that has learned the distance returns it"
    learned_distance = distance if settings.method == "distance" else None
    classes = [np.empty(0, np.int64)]
    ids = np.zeros(class_ids.shape, np.int32)
    for group in _class_groups(class_ids, settings):
        mask = np.isin(class_ids, group)
        by_components = settings.method == "components"
        parts = ndimage.label(mask)[0] if by_components else _watershed(mask, settings.h, learned_distance)
        count = int(parts.max(initial=0))
        ids[mask] = parts[mask] + sum(map(len, classes))
        pixels = [np.bincount(parts[class_ids == label], minlength=count + 1)[1:] for label in group]
        classes.append(np.array(group)[np.argmax(pixels, 0)])
    return ids, np.concatenate(classes)


def _class_groups(class_ids: npt.NDArray[np.uint8], settings: Postprocess) -> list[tuple[int, ...]]:
    """Return the groups of classes that form instances together, then each other class of the image alone, without the background."""
    grouped = {label for group in settings.together for label in group}
    single = set(np.unique(class_ids[class_ids > 0]).tolist()) - grouped
    return [*settings.together, *((label,) for label in sorted(single))]


def _watershed(
    mask: npt.NDArray[np.bool_], h: float, distance: npt.NDArray[np.float32] | None
) -> npt.NDArray[np.int32]:
    """Divide regions where the distance falls by `h` between two of its maxima.

    Args:
        mask: (*shape), bool.
        h: Height of a maximum above the saddle towards a higher one.
        distance: (*shape), float32; None for the distance to the border of the mask in pixels, which cuts regions at their waists.

    Returns:
        The same pixels, numbered from 1.
    """
    from scipy import ndimage
    from skimage.morphology import local_maxima, reconstruction
    from skimage.segmentation import watershed

    neighbours = ndimage.generate_binary_structure(mask.ndim, 1)
    padded = np.pad(mask, 1)  # the edge of the image is a border too
    height = ndimage.distance_transform_edt(padded).astype(np.float32) if distance is None else np.pad(distance, 1)
    # The background lies below every lowered maximum, so that regions do not affect each other, and even the lowest keeps a maximum.
    relief = np.where(padded, height, np.float32(-h - 1))
    maxima = local_maxima(reconstruction(relief - np.float32(h), relief, footprint=neighbours), connectivity=1)
    seeds, _ = ndimage.label(maxima, neighbours)
    parts: npt.NDArray[np.int32] = watershed(-height, seeds, mask=padded)[(slice(1, -1),) * mask.ndim]
    return parts

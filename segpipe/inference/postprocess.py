"""Objects out of classes: how the prediction of a semantic model comes apart into instances.

`components` takes each connected region of a class for an object. `watershed` also cuts regions at their waists: it floods
the distance to the border from that distance's maxima (Vincent, Soille 1991), of which those less than `h` pixels above the
saddle towards a higher one are no maxima of their own. `distance` floods the depth that a network has learned instead
(`segpipe.training.sampling.distance`), which falls between objects also where the mask has no waist. `detections` keeps the objects
that a detector is sure enough of.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from segpipe.samples import Instances

MAX_PIXELS = 1 << 24
"""Of a larger image, classes do not come apart into objects: it would take 40 bytes a pixel."""
Method = Literal["components", "watershed", "distance", "detections"]


class Postprocess(BaseModel):
    """How objects are found, as segmenter.json carries it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    method: Method
    h: float = Field(1.0, ge=0)
    """How far the distance to the border must fall between two objects: in pixels (watershed), as a share of the largest (distance)."""
    min_size: int = Field(0, ge=0)
    """Objects of fewer pixels are left out."""
    min_score: float = Field(0.0, ge=0, le=1)
    """Objects that the model is less sure of are left out."""
    together: tuple[tuple[int, ...], ...] = ()
    """Classes that make up objects with each other, such as nucleus and cytoplasm of a cell: pixels of one are no border to another's.
    An object is then of the class that most of its pixels have. Classes that are not named make objects of their own."""


def separate(
    class_ids: npt.NDArray[np.uint8],
    probabilities: npt.NDArray[np.float32],
    how: Postprocess,
    distance: npt.NDArray[np.float32] | None = None,
) -> Instances:
    """The objects of a semantic prediction, by class, from 1; class 0 is taken for the background.

    class_ids: (H, W) or (D, H, W). probabilities: (n_classes, *shape). distance: (*shape), 0..1, for the method of that name.
    An object's score is the mean probability, over its pixels, of its class and those that make up objects with it. Of more than
    `Instances.MOST` objects the largest are kept. Takes about 40 bytes a pixel.
    """
    ids, classes = _split(class_ids, how, distance)
    sure = np.zeros(len(classes) + 1)
    for group in _groups(class_ids, how):
        there = np.isin(class_ids, group)
        sure += np.bincount(ids[there], probabilities[list(group)].sum(0)[there], len(classes) + 1)
    areas = np.bincount(ids.reshape(-1), minlength=len(classes) + 1)[1:]
    return select_instances(ids, classes, sure[1:] / np.maximum(areas, 1), areas, how)


def select_instances(
    ids: npt.NDArray[np.int32],
    classes: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float64],
    areas: npt.NDArray[np.int64],
    how: Postprocess,
) -> Instances:
    """Those of the objects that are large and sure enough. ids: 1 .. n; the rest (n,), of object 1 first."""
    kept = (areas >= max(1, how.min_size)) & (scores >= how.min_score)
    if kept.sum() > Instances.MOST:
        kept &= areas > np.partition(areas[kept], -Instances.MOST - 1)[-Instances.MOST - 1]
    table = np.zeros(len(classes) + 1, np.int32)
    table[1:][kept] = np.arange(1, kept.sum() + 1)
    return Instances.from_map(table[ids], classes[kept], scores[kept])


def _split(
    class_ids: npt.NDArray[np.uint8], how: Postprocess, distance: npt.NDArray[np.float32] | None
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Ids 1 .. n of the parts of every class, and the class of each."""
    from scipy import ndimage

    assert distance is not None or how.method != "distance", "the network that learned it gives it"
    depth = distance if how.method == "distance" else None
    classes = [np.empty(0, np.int64)]
    ids = np.zeros(class_ids.shape, np.int32)
    for group in _groups(class_ids, how):
        mask = np.isin(class_ids, group)
        parts = ndimage.label(mask)[0] if how.method == "components" else _watershed(mask, how.h, depth)
        count = int(parts.max(initial=0))
        ids[mask] = parts[mask] + sum(map(len, classes))
        pixels = [np.bincount(parts[class_ids == label], minlength=count + 1)[1:] for label in group]
        classes.append(np.array(group)[np.argmax(pixels, 0)])
    return ids, np.concatenate(classes)


def _groups(class_ids: npt.NDArray[np.uint8], how: Postprocess) -> list[tuple[int, ...]]:
    """The classes of an image but the background, those that make up objects with each other in one."""
    alone = set(np.unique(class_ids[class_ids > 0]).tolist()) - {label for group in how.together for label in group}
    return [*how.together, *((label,) for label in sorted(alone))]


def _watershed(mask: npt.NDArray[np.bool_], h: float, depth: npt.NDArray[np.float32] | None) -> npt.NDArray[np.int32]:
    """Regions, (*shape,) bool -> the same pixels, numbered from 1, regions cut where the depth, (*shape,), falls by `h` between two
    of its maxima. None takes the distance to the border, so that they are cut at their waists."""
    from scipy import ndimage
    from skimage.morphology import local_maxima, reconstruction
    from skimage.segmentation import watershed

    near = ndimage.generate_binary_structure(mask.ndim, 1)
    padded = np.pad(mask, 1)  # the edge of the image is a border too
    distance = ndimage.distance_transform_edt(padded).astype(np.float32) if depth is None else np.pad(depth, 1)
    # With the background below every flooded maximum, regions know nothing of each other, and the lowest keeps one.
    relief = np.where(padded, distance, np.float32(-h - 1))
    tops = local_maxima(reconstruction(relief - np.float32(h), relief, footprint=near), connectivity=1)
    seeds, _ = ndimage.label(tops, near)
    found: npt.NDArray[np.int32] = watershed(-distance, seeds, mask=padded)[(slice(1, -1),) * mask.ndim]
    return found

"""Pixels counted by class: all that the scores of classes need of two masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.labels import Labelling, OverlappingLabelling
from segpipe.samples import IGNORE

Counts = npt.NDArray[np.int64]
Tallies = npt.NDArray[np.number[Any]]
"""(..., 3, n_classes): hits, pixels in the truth, pixels predicted. Of objects or boundary pixels the same three."""
Values = npt.NDArray[np.float64]

_BLOCK = 1 << 18


def confusion(truth: npt.NDArray[np.uint8], prediction: npt.NDArray[np.uint8], n_classes: int) -> Counts:
    """Pixels by true class (rows) and predicted class (columns): (n_classes, n_classes), int64.

    truth: any shape, class ids and `IGNORE`. prediction: the same shape, class ids; ignored pixels may hold anything.
    Raises ValueError where shapes differ or an id is not a class.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth has shape {truth.shape}, prediction {prediction.shape}")
    if truth.dtype != np.uint8 or prediction.dtype != np.uint8:
        raise ValueError(f"class ids are uint8, found {truth.dtype} and {prediction.dtype}")
    # Both ids in one 16 bit number need no masking, and what is no class shows up in its own bin.
    joint = np.zeros(1 << 16, np.int64)
    flat_truth, flat_prediction = truth.reshape(-1), prediction.reshape(-1)
    for start in range(0, flat_truth.size, _BLOCK):  # blocks that stay in the processor's cache
        pair = flat_truth[start : start + _BLOCK].astype(np.intp)
        pair <<= 8
        pair |= flat_prediction[start : start + _BLOCK]
        found = np.bincount(pair)
        joint[: found.size] += found
    table = joint.reshape(256, 256)[:IGNORE]
    counts = table[:n_classes, :n_classes].copy()
    if counts.sum() != table.sum():
        strange = sorted({int(i) for i in np.argwhere(table).ravel() if i >= n_classes})
        raise ValueError(f"class ids {strange} in a mask of {n_classes} classes")
    return counts


def tallies(confusions: npt.NDArray[np.int64], labelling: Labelling | None = None) -> Counts:
    """(..., n_labels, n_labels) confusion matrices -> (..., 3, n_classes) `Tallies`. labelling: what labels mean; None: class ids.

    `per_class`, `macro` and `micro` take them. Where classes overlap, a score over all pixels (accuracy, Matthews correlation)
    does not follow from them, since classes do not share out the pixels.
    """
    hits, truth, said = np.diagonal(confusions, axis1=-2, axis2=-1), confusions.sum(-1), confusions.sum(-2)
    if isinstance(labelling, OverlappingLabelling):
        members = labelling.members[: labelling.n_labels].astype(np.int64)
        hits = np.einsum("...tp,tk,pk->...k", confusions, members, members, optimize=True)
        truth, said = truth @ members, said @ members
    return np.stack([hits, truth, said], axis=-2)

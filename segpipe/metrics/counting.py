"""Pixels counted by class: everything that class scores need of two masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.labels import Labelling, OverlappingLabelling
from segpipe.samples import IGNORE

Counts = npt.NDArray[np.int64]
Tallies = npt.NDArray[np.number[Any]]
"""(..., 3, n_classes): hits, pixels in the truth, pixels in the prediction. Of instances or boundary pixels, the same three."""
Values = npt.NDArray[np.float64]

_BLOCK_PIXELS = 1 << 18


def confusion(truth: npt.NDArray[np.uint8], prediction: npt.NDArray[np.uint8], n_classes: int) -> Counts:
    """Count pixels by true class and predicted class.

    Args:
        truth: class ids and `IGNORE`, of any shape.
        prediction: class ids, of the same shape; ignored pixels may have any value.
        n_classes: the number of classes; class ids are below it. If classes overlap, the number of labels.

    Returns:
        (n_classes, n_classes), int64: rows are true classes, columns are predicted ones.

    Raises:
        ValueError: shapes differ, an array is not uint8, or an id is not a class.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth has shape {truth.shape}, prediction {prediction.shape}")
    if truth.dtype != np.uint8 or prediction.dtype != np.uint8:
        raise ValueError(f"class ids are uint8, found {truth.dtype} and {prediction.dtype}")
    # Both ids in one 16-bit number need no masking, and ids that are not classes have bins of their own.
    joint = np.zeros(1 << 16, np.int64)
    flat_truth, flat_prediction = truth.reshape(-1), prediction.reshape(-1)
    for start in range(0, flat_truth.size, _BLOCK_PIXELS):  # blocks that stay in the processor's cache
        pair = flat_truth[start : start + _BLOCK_PIXELS].astype(np.intp)
        pair <<= 8
        pair |= flat_prediction[start : start + _BLOCK_PIXELS]
        block = np.bincount(pair)
        joint[: block.size] += block
    table = joint.reshape(256, 256)[:IGNORE]
    counts = table[:n_classes, :n_classes].copy()
    if counts.sum() != table.sum():
        invalid = sorted({int(i) for i in np.argwhere(table).ravel() if i >= n_classes})
        raise ValueError(f"class ids {invalid} in a mask of {n_classes} classes")
    return counts


def tallies(confusions: npt.NDArray[np.int64], labelling: Labelling | None = None) -> Counts:
    """Sum confusion matrices to tallies, which `per_class`, `macro` and `micro` take.

    If classes overlap, scores over all pixels (accuracy, Matthews correlation) do not follow from tallies, since a pixel may count for
    several classes.

    Args:
        confusions: (..., n_labels, n_labels), from `confusion`.
        labelling: the meaning of the labels; None if they are class ids.

    Returns:
        (..., 3, n_classes), `Tallies`.
    """
    hits, truth = np.diagonal(confusions, axis1=-2, axis2=-1), confusions.sum(-1)
    predicted = confusions.sum(-2)
    if isinstance(labelling, OverlappingLabelling):
        members = labelling.members[: labelling.n_labels].astype(np.int64)
        hits = np.einsum("...tp,tk,pk->...k", confusions, members, members, optimize=True)
        truth, predicted = truth @ members, predicted @ members
    return np.stack([hits, truth, predicted], axis=-2)

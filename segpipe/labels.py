"""The meaning of label values: one class per pixel or, if classes overlap, a set of classes per pixel.

Labels are uint8 in both cases, so code that copies, crops, rotates or stores them need not know which it is. The values 255 and 254
are reserved (`segpipe.samples.IGNORE` and `UNKNOWN`); both have the highest bit, which no set of classes has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

MAX_OVERLAPPING_CLASSES = 8
"""The largest number of classes, including the background, if classes overlap: a label has seven bits for the others."""

_RESERVED_BIT = 128
"""The bit of a label that no set of classes has."""


@dataclass(frozen=True)
class Labelling:
    """Labels of exclusive classes: each pixel has one class, and its label is the class id.

    Attributes:
        n_classes: the number of classes, including the background.
    """

    n_classes: int

    def where(self, labels: Labels, class_id: int) -> Mask:
        """Find the pixels of a class.

        Args:
            labels: uint8, any shape.
            class_id: the class to find.

        Returns:
            A bool array with the shape of `labels`, True at pixels of the class.
        """
        return labels == class_id

    @property
    def n_labels(self) -> int:
        """The number of labels that have a meaning: 0 .. n_labels - 1."""
        return self.n_classes

    @cached_property
    def members(self) -> Mask:
        """The classes of each label, (256, n_classes), bool. `IGNORE`, `UNKNOWN` and unused values have none."""
        labels = np.arange(self.n_labels, dtype=np.uint8)
        table = np.zeros((256, self.n_classes), bool)
        table[: self.n_labels] = np.stack([self.where(labels, k) for k in range(self.n_classes)], axis=1)
        return table

    def count_pixels(self, labels: Iterable[np.ndarray]) -> npt.NDArray[np.int64]:
        """Count the pixels of each class.

        Args:
            labels: uint8, (H, W) or (D, H, W); or slabs of it, one at a time. Slabs bound the memory: `np.bincount` makes a 64-bit
                copy of its input.

        Returns:
            (n_classes,), the number of pixels of each class. If classes overlap, a pixel counts for each of its classes.
        """
        counts = np.zeros(256, np.int64)
        for slab in labels:
            counts += np.bincount(slab.ravel(), minlength=256)
        return counts @ self.members.astype(np.int64)

    def names(self, classes: Sequence[str]) -> list[str]:
        """Return the name of each label, (n_labels,): that of its class or, for a set, of all its classes: "cell + nucleus"."""
        return [" + ".join(classes[k] for k in np.flatnonzero(row).tolist()) for row in self.members[: self.n_labels]]

    def palette(self, colors: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return the colour of each label, (n_labels, 3), from the colours of the classes, (n_classes, 3), RGB 0..255."""
        return colors


@dataclass(frozen=True)
class OverlappingLabelling(Labelling):
    """Labels of overlapping classes: a pixel has any number of classes.

    Bit k - 1 of a label is set if the pixel has class k. A pixel without any of these classes is background (class 0).
    """

    @property
    def n_labels(self) -> int:
        """The number of labels that have a meaning: 0 .. n_labels - 1."""
        return 1 << (self.n_classes - 1)

    def where(self, labels: Labels, class_id: int) -> Mask:
        """Find the pixels of a class, as `Labelling.where` does."""
        if class_id == 0:
            return labels == 0
        bit = _bit(class_id)
        mask: Mask = (labels & (_RESERVED_BIT | bit)) == bit
        return mask

    def palette(self, colors: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return the colour of each label, as `Labelling.palette` does; the colour of a set is the mean of its classes' colours."""
        sets = self.members[: self.n_labels].astype(np.float64)
        return np.rint(sets @ colors / sets.sum(1, keepdims=True)).astype(np.uint8)

    def pack(self, present: Iterable[Mask]) -> Labels:
        """Combine one mask per class into labels.

        Args:
            present: n_classes bool arrays of one shape, by class id. That of class 0 is ignored: the background follows from the
                others.

        Returns:
            A uint8 array of the same shape: the set of classes of each pixel.
        """
        masks = iter(present)
        labels = np.zeros(next(masks).shape, np.uint8)
        for class_id, mask in enumerate(masks, start=1):
            labels |= mask.astype(np.uint8) * np.uint8(_bit(class_id))
        return labels


def _bit(class_id: int) -> int:
    return 1 << (class_id - 1)


def labelling_of(classes: int | Labelling, overlapping: bool = False) -> Labelling:
    """Return the labelling of a dataset.

    Args:
        classes: the number of classes, including the background; a labelling is returned unchanged.
        overlapping: True if a pixel may have several classes.
    """
    if isinstance(classes, Labelling):
        return classes
    return OverlappingLabelling(classes) if overlapping else Labelling(classes)

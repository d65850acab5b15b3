"""What the number in a label plane says of a pixel: its one class or, where classes overlap, the set of its classes.

Labels are uint8 either way, so that whatever copies, crops, turns or stores them need not know which it is. 255 and 254 are
spoken for (`segpipe.samples.IGNORE` and `UNKNOWN`); both hold the highest bit, which no set of classes has.
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
"""Overlapping classes that a byte holds, the background with them: seven bits."""

_NO_SET = 128


@dataclass(frozen=True)
class Labelling:
    """Each pixel has one class; its label is the class id."""

    n_classes: int

    def where(self, labels: Labels, index: int) -> Mask:
        """Where a class is: bool, shaped as `labels`."""
        return labels == index

    @property
    def n_labels(self) -> int:
        """Labels that mean something are below this."""
        return self.n_classes

    @cached_property
    def members(self) -> Mask:
        """(256, n_classes): which classes each label means; none, for `IGNORE`, `UNKNOWN` and what is no label."""
        every = np.arange(self.n_labels, dtype=np.uint8)
        table = np.zeros((256, self.n_classes), bool)
        table[: self.n_labels] = np.stack([self.where(every, index) for index in range(self.n_classes)], axis=1)
        return table

    def pixels(self, labels: Iterable[np.ndarray]) -> npt.NDArray[np.int64]:
        """(n_classes,): how many pixels each class has. Counted slab by slab: numpy counts in 64-bit copies of what it is given."""
        counts = np.zeros(256, np.int64)
        for slab in labels:
            counts += np.bincount(slab.ravel(), minlength=256)
        return counts @ self.members.astype(np.int64)

    def names(self, classes: Sequence[str]) -> list[str]:
        """What each label means, by label: the name of its class or, of a set, those of all of them, "cell + nucleus"."""
        return [" + ".join(classes[k] for k in np.flatnonzero(row).tolist()) for row in self.members[: self.n_labels]]

    def palette(self, colors: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """(n_labels, 3): the colour of each label, from those of the classes, (n_classes, 3), RGB."""
        return colors


@dataclass(frozen=True)
class OverlappingLabelling(Labelling):
    """A pixel has any number of classes. Bit k - 1 of its label says that class k is there; class 0, the background, is where no
    other is."""

    @property
    def n_labels(self) -> int:
        """Labels that mean something are below this."""
        return 1 << (self.n_classes - 1)

    def where(self, labels: Labels, index: int) -> Mask:
        """Where a class is: bool, shaped as `labels`."""
        bit = _bit(index)
        found: Mask = (labels & (_NO_SET | bit)) == bit if index else labels == 0
        return found

    def palette(self, colors: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The mean colour of a set's classes; that of the background for the empty set."""
        sets = self.members[: self.n_labels].astype(np.float64)
        return np.rint(sets @ colors / sets.sum(1, keepdims=True)).astype(np.uint8)

    def pack(self, present: Iterable[Mask]) -> Labels:
        """(n_classes, ...) bool -> (...) uint8: the set of the classes that are there. What is said of class 0 counts nothing."""
        masks = iter(present)
        labels = np.zeros(next(masks).shape, np.uint8)
        for index, there in enumerate(masks, start=1):
            labels |= there.astype(np.uint8) * np.uint8(_bit(index))
        return labels


def _bit(index: int) -> int:
    return 1 << (index - 1) if index else 0


def labelling_of(classes: int | Labelling, overlapping: bool = False) -> Labelling:
    """What labels mean in a dataset of so many classes, the background with them; a labelling is itself."""
    if isinstance(classes, Labelling):
        return classes
    return OverlappingLabelling(classes) if overlapping else Labelling(classes)

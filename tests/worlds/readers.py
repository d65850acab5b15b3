"""A reader whose samples are in memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from segpipe.samples import Sample


class MemoryReader:
    """Samples in a list, with the interface of ShardReader; images or volumes.

    Args:
        samples: The samples, in order.
        n_classes: The number of classes that `class_pixels` counts.
    """

    split = "test"

    def __init__(self, samples: Sequence[Sample], n_classes: int = 3) -> None:
        self.samples, self.n_classes = samples, n_classes
        self.keys = [sample.key for sample in samples]

    @cached_property
    def class_pixels(self) -> np.ndarray:
        """The pixels of each class in each sample, (samples, classes) int64."""
        counts = [np.bincount(s.labels.ravel(), minlength=256)[: self.n_classes] for s in self.samples]
        return np.array(counts, np.int64)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

"""Images of touching cells with instance ids."""

from __future__ import annotations

import numpy as np

from segpipe.samples import IGNORE, Sample


def cells(index: int, ignored: bool) -> Sample:
    """Return an image of squares of two classes; some touch, and some have pixels of another brightness."""
    rng = np.random.default_rng(index)
    labels, ids = np.zeros((64, 72), np.uint8), np.zeros((64, 72), np.uint16)
    number = 0
    for row in range(2, 52, 13):
        for column in range(2, 60, 13):
            if rng.random() < 0.6:
                number += 1
                height, width = rng.integers(5, 12, 2)
                area = np.s_[row : row + height, column : column + width]
                labels[area], ids[area] = rng.integers(1, 3), number
    image = (labels + 0.5) / 3
    image[rng.random(labels.shape) < 0.01] = 0.1
    image[:, 20:22] = 0.1  # cuts instances in two
    if ignored:
        labels[:, 60:] = IGNORE
    return Sample(f"c{index}", image.astype(np.float32)[:, :, None], labels, ids)

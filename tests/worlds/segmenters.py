"""An engine whose predictions are known, and its normalisation."""

import numpy as np

from segpipe.inference.preprocess import Normalisation

UNIT = Normalisation(low=(0.0,), high=(1.0,), mean=(0.0,), std=(1.0,))
"""Values stay as they are."""


class Pixelwise:
    """Class scores that depend on the pixel's own value alone, so that any tiling of images or volumes gives the same result."""

    name = "toy"

    def __init__(self):
        self.shapes = []

    def __call__(self, batch):
        self.shapes.append(batch.shape)
        x = batch[:, :1]
        return np.concatenate([x, 1 - x, np.full_like(x, 0.6)], 1).astype(np.float32)


def assert_likeliest(class_ids, scores):
    """Check that each pixel has the class of the highest score. If two scores are about equal, either class is accepted, because the
    average over tiles is rounded."""
    first, second = np.sort(scores, 0)[:-3:-1]
    clear = first - second > 1e-5
    np.testing.assert_array_equal(class_ids[clear], scores.argmax(0)[clear])

"""An engine whose answers are known."""

import numpy as np


class Pixelwise:
    """Class scores that depend on the pixel alone: any tiling, of images or volumes, must give the same answer."""

    name = "toy"

    def __init__(self):
        self.shapes = []

    def __call__(self, batch):
        self.shapes.append(batch.shape)
        x = batch[:, :1]
        return np.concatenate([x, 1 - x, np.full_like(x, 0.6)], 1).astype(np.float32)


def assert_likeliest(class_ids, scores):
    """Each pixel has the class of the highest score; where two are alike, the mean over tiles may round to either."""
    first, second = np.sort(scores, 0)[:-3:-1]
    told = first - second > 1e-5
    np.testing.assert_array_equal(class_ids[told], scores.argmax(0)[told])

"""Images of coloured patches, whose classes follow from their colours, for families that are fitted without training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from segpipe.inference.preprocess import Normalisation
from segpipe.samples import IGNORE, Sample


def colour_patches(
    seed: int,
    colours: np.ndarray,
    grid: tuple[int, int] = (4, 5),
    noise: float = 8,
    n_classes: int | None = None,
    ignored_rows: int = 3,
) -> Sample:
    """Draw patches of 16 x 16 pixels in random colours.

    Args:
        seed: of the colours' positions and the noise.
        colours: (colours, channels), 0..255; the class of a patch is the row of its colour.
        grid: rows and columns of patches.
        noise: standard deviation of the noise.
        n_classes: the last class has all colours from `n_classes - 1` on; None: each colour is a class.
        ignored_rows: rows of pixels at the top that are ignored.
    """
    rng = np.random.default_rng(seed)
    rows = np.kron(rng.integers(0, len(colours), grid), np.ones((16, 16), np.int64))
    image = np.clip(colours[rows] + rng.normal(0, noise, (*rows.shape, colours.shape[1])), 0, 255).astype(np.uint8)
    labels = np.minimum(rows, (n_classes or len(colours)) - 1).astype(np.uint8)
    labels[:ignored_rows] = IGNORE
    return Sample(f"s{seed}", image, labels)


def patch_normalisation(channels: int = 3) -> Normalisation:
    """Return a normalisation of values 0..255 that is the same for every channel."""
    return Normalisation(low=(0,) * channels, high=(255,) * channels, mean=(0.4,) * channels, std=(0.3,) * channels)


def predicted_ids(
    model: Callable[[np.ndarray], np.ndarray], sample: Sample, normalisation: Normalisation | None = None
) -> np.ndarray:
    """Return the class ids (H, W) that a fitted model predicts for an image."""
    normalisation = normalisation or patch_normalisation(sample.image.shape[2])
    return model(normalisation.apply(sample.image)[None])[0].argmax(0)

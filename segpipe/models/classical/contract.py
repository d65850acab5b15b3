"""The interface of classical families, and what they share: files, input checks and colours."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from segpipe.errors import DataError
from segpipe.files import atomic_path
from segpipe.samples import Sample

Floats = npt.NDArray[np.float32]
Normalise = Callable[[np.ndarray], Floats]
"""Maps a stored image (H, W, C), any real dtype, to the engine's input (C, H, W), float32 (`Normalisation.apply`)."""

UNSEEN_CLASS_SCORE = -1e4
"""The score of a class that no training image shows: so low that its probability after softmax is zero."""

_WINDOW_PERCENTILES = (0.5, 99.5)


class Classical(Protocol):
    """A fitted classical model. It is also an engine (`segpipe.inference.engines.engine.Engine`)."""

    name: str

    @classmethod
    def fit(cls, samples: Iterable[Sample], normalise: Normalise, n_classes: int, seed: int, config: Any) -> Self:
        """Fit a model to labelled samples. The same samples, seed and config give the same model.

        Args:
            samples: Labelled samples, read once.
            normalise: Maps an image to the engine's input.
            n_classes: Number of classes.
            seed: Seed of all random choices.
            config: Settings of the family (`Family.config`).

        Raises:
            DataError: No sample has a labelled pixel.
        """

    def __call__(self, batch: Floats) -> Floats:
        """Map a normalised batch (N, C, H, W) to scores (N, n_classes, H, W) whose softmax are the class probabilities."""

    def save(self, path: Path) -> None:
        """Write the model as safetensors, atomically. The same model gives the same bytes."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that `save` wrote.

        Raises:
            DataError: The file is not one of this family.
        """


def no_labelled_pixels() -> DataError:
    """Return the error of a fit whose samples have no labelled pixel."""
    return DataError(
        "no labelled pixel to learn from",
        fix="label some images of the train split, or remove the classical candidates",
    )


def check_batch(batch: Floats, channels: int, spatial_dims: tuple[int, ...] = (2,)) -> Floats:
    """Check the shape of an engine's input.

    Args:
        batch: (N, C, H, W) or (N, C, D, H, W).
        channels: The expected number of channels.
        spatial_dims: The accepted numbers of spatial dimensions.

    Returns:
        The batch as float32.

    Raises:
        DataError: The number of channels or of dimensions is not the expected one.
    """
    batch = np.asarray(batch, np.float32)
    if batch.ndim - 2 not in spatial_dims or batch.shape[1] != channels:
        raise DataError("invalid input shape", found=f"shape {batch.shape}", expected=f"(N, {channels}, height, width)")
    return batch


def intensity_window(pixels: Floats) -> tuple[Floats, Floats]:
    """Return the 0.5th and 99.5th percentiles of each channel.

    Stretching values between them restores colours in 0..1 for any normalisation, and removes the tint of the light.

    Args:
        pixels: Normalised values, (n, C).

    Returns:
        Two arrays (C,), float32; the second is greater than the first in every channel.
    """
    low, high = np.percentile(pixels, _WINDOW_PERCENTILES, axis=0).astype(np.float32)
    return low, np.where(high > low, high, low + 1).astype(np.float32)  # a constant channel has high == low


def to_colours(pixels: Floats, low: Floats, high: Floats) -> Floats:
    """Convert normalised values to a space whose distances are close to perceived differences of colour.

    Args:
        pixels: Normalised values, (..., C).
        low: Lower end of the window, (C,), see `intensity_window`.
        high: Upper end of the window, (C,).

    Returns:
        An array (..., C), float32: CIELAB for three channels, which are taken as RGB; otherwise values scaled to 0..100.
    """
    stretched = np.clip((pixels - low) / (high - low), 0, 1).astype(np.float32)
    if stretched.shape[-1] != 3:
        return stretched * np.float32(100)
    from skimage.color import rgb2lab

    return rgb2lab(stretched).astype(np.float32)


def save_tensors(path: Path, name: str, metadata: dict[str, Any], tensors: dict[str, npt.NDArray[Any]]) -> None:
    """Write a model as safetensors, atomically.

    Args:
        path: The file.
        name: The family, under which the metadata are stored.
        metadata: Settings and numbers of the model, as JSON.
        tensors: Its arrays.
    """
    from safetensors.numpy import save

    content = save(tensors, {name: json.dumps(metadata)})  # a single key, because the order of several is not fixed
    with atomic_path(path) as target:
        target.write_bytes(content)


def load_tensors(path: Path, name: str, keys: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Read the metadata and the arrays of a model that `save_tensors` wrote.

    Args:
        path: The file.
        name: The family.
        keys: Names of the arrays.

    Raises:
        DataError: The file is not one of this family.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {}).get(name, "{}"))
            return metadata, {key: file.get_tensor(key) for key in keys}
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise wrong_file(path, name, str(error)) from error


def wrong_file(path: Path, name: str, content: str) -> DataError:
    """Return the error of a file that does not hold a model of the family `name`."""
    return DataError(f"not a {name} model", where=path, found=content, fix="train it again: segpipe train CANDIDATE")

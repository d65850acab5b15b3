"""What every classical family has in common: how it is fitted, kept and called, and the colours that it looks at."""

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
"""(H, W, C), stored values -> (C, H, W), float32: what the engine will be called with."""

UNSEEN_CLASS_SCORE = -1e4
"""The score of a class that the training images do not show: so far below the others that a softmax gives it nothing."""


class Classical(Protocol):
    """A fitted model; an engine (`segpipe.inference.engines.engine`)."""

    name: str

    @classmethod
    def fit(cls, samples: Iterable[Sample], normalise: Normalise, n_classes: int, seed: int, config: Any) -> Self:
        """Fit on labelled samples, read once. The same samples, seed and config give the same model.

        Raises DataError where there is not a single labelled pixel.
        """

    def __call__(self, batch: Floats) -> Floats:
        """(N, C, H, W), normalised -> scores (N, n_classes, H, W), whose softmax is the probability of each class."""

    def save(self, path: Path) -> None:
        """Write the model as safetensors, atomically; the same model gives the same bytes."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote; a DataError where the file is anything else."""


def no_labelled_pixels() -> DataError:
    """The error of a fit that has nothing to learn from."""
    return DataError(
        "no labelled pixel to learn from", fix="label some images of the train split, or drop the classical candidates"
    )


def check_batch(batch: Floats, channels: int, axes: tuple[int, ...] = (2,)) -> Floats:
    """The batch as float32, or a DataError where it has another number of channels, or none of these numbers of `axes`."""
    batch = np.asarray(batch, np.float32)
    if batch.ndim - 2 not in axes or batch.shape[1] != channels:
        raise DataError("wrong input", found=f"shape {batch.shape}", expected=f"(N, {channels}, height, width)")
    return batch


def intensity_window(pixels: Floats) -> tuple[Floats, Floats]:
    """(n, C) normalised values -> the 0.5 and 99.5 percentiles, (C,) each.

    Stretching between them gives back colours in 0..1, whatever the normalisation was, with the light's tint taken out.
    """
    low, high = np.percentile(pixels, (0.5, 99.5), axis=0).astype(np.float32)
    return low, np.where(high > low, high, low + 1).astype(np.float32)  # a constant channel


def to_colours(pixels: Floats, low: Floats, high: Floats) -> Floats:
    """(..., C) normalised values -> (..., C) colours in which distances are about those that people see.

    Three channels are taken for RGB and become CIELAB; any other number is scaled to 0..100.
    """
    stretched = np.clip((pixels - low) / (high - low), 0, 1).astype(np.float32)
    if stretched.shape[-1] != 3:
        return stretched * np.float32(100)
    from skimage.color import rgb2lab

    return rgb2lab(stretched).astype(np.float32)  # type: ignore[no-any-return]


def save_tensors(path: Path, name: str, about: dict[str, Any], tensors: dict[str, npt.NDArray[Any]]) -> None:
    """Write a model's arrays and settings, atomically."""
    from safetensors.numpy import save

    content = save(tensors, {name: json.dumps(about)})  # one key: the order of several is not fixed
    with atomic_path(path) as target:
        target.write_bytes(content)


def load_tensors(path: Path, name: str, keys: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Settings and arrays of a model that `save_tensors` wrote under this name."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {}).get(name, "{}"))
            return about, {key: file.get_tensor(key) for key in keys}
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise wrong_file(path, name, str(error)) from error


def wrong_file(path: Path, name: str, found: str) -> DataError:
    """The error of a file that holds something else."""
    return DataError(f"is no {name} model", where=path, found=found, fix="train it anew: segpipe train CANDIDATE")

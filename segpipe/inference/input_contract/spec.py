"""`InputSpec`: what the training images of a model were like, so that other images are converted exactly or refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from segpipe.config import Pages
from segpipe.errors import DataError

if TYPE_CHECKING:
    from segpipe.data.manifest.fingerprint import Fingerprint

_KIND_WORDS = {"uint8": "8-bit numbers", "uint16": "16-bit numbers", "float32": "floats"}


class InputSpec(BaseModel):
    """The images that a model was trained on; the part `input` of segmenter.json.

    Value ranges have one number per channel, in stored values (before any normalisation).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    dtype: Literal["uint8", "uint16", "float32"]
    """The number type of the decoded images; integers that do not fit 16 bits without sign are decoded to float32."""
    whole_numbers: bool
    """True if all values are whole numbers."""
    minimum: tuple[float, ...]
    """The smallest value."""
    maximum: tuple[float, ...]
    """The largest value."""
    spread: tuple[float, ...]
    """The smallest difference, over images, between the 0.5th and the 99.5th percentile of an image."""
    channel_names: tuple[str, ...] = ()
    """The names of the channels in their order; empty if the files do not name them."""
    pages: Pages = "refuse"
    """How several pages of a TIFF file are read."""
    orientation: str | None = None
    """For volumes: the order of voxels that the network sees; None if the files state no orientation."""
    spacing_min: tuple[float, ...] | None = None
    """For volumes: the smallest size of a voxel in mm (depth, height, width)."""
    spacing_max: tuple[float, ...] | None = None
    """For volumes: the largest size of a voxel in mm (depth, height, width)."""
    size_min: tuple[int, ...] = ()
    """The smallest image along each axis: height, width, for volumes depth, height, width."""
    size_max: tuple[int, ...] = ()
    """The largest image along each axis."""

    @property
    def span(self) -> float:
        """The difference between the largest and the smallest value of all channels."""
        return max(self.maximum) - min(self.minimum)

    def in_words(self) -> str:
        """Return the number type and the range of values, for errors and notes."""
        return (
            f"{_KIND_WORDS[self.dtype]} from {min(self.minimum):g} to {max(self.maximum):g}, like the training images"
        )

    def in_channel_order(self, image: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
        """Bring named channels to the order of the training images.

        Args:
            image: (..., C).
            names: the names of its channels; empty if they are not known.

        Returns:
            The image, and a note if the order was changed.

        Raises:
            DataError: the names differ from those of the training images.
        """
        expected = [name.casefold() for name in self.channel_names]
        actual = [name.casefold() for name in names]
        if not expected or not actual or actual == expected:
            return image, []
        if sorted(actual) != sorted(expected) or len(set(actual)) != len(actual):
            raise DataError(
                "the channels are not those of the training images",
                found=", ".join(names),
                expected=", ".join(self.channel_names),
                fix="give images with the same channels as the training images",
            )
        order = [actual.index(name) for name in expected]
        return np.ascontiguousarray(image[..., order]), [f"channels ordered as {', '.join(self.channel_names)}"]

    def size_notes(self, shape: Sequence[int]) -> list[str]:
        """Return a note if an image is much smaller or larger than all training images; by more than a factor of two along an axis."""
        if len(shape) != len(self.size_min):
            return []
        axes = list(zip(shape, self.size_min, self.size_max, strict=True))
        if all(low / 2 <= edge <= 2 * high for edge, low, high in axes):
            return []
        sizes = [" x ".join(map(str, reversed(size))) for size in (shape, self.size_min, self.size_max)]
        return [f"its size of {sizes[0]} is far from that of the training images, {sizes[1]} to {sizes[2]}"]


def input_spec(fingerprint: Fingerprint) -> InputSpec | None:
    """Return what the fingerprint of a dataset says about its images; None for a fingerprint of an older version of segpipe.

    Args:
        fingerprint: the summary of the dataset.
    """
    volume = fingerprint.task == "volume"
    sizes = [fingerprint.height, fingerprint.width]
    if volume and fingerprint.depth is not None:
        sizes.insert(0, fingerprint.depth)
    if fingerprint.minimum is None or fingerprint.maximum is None or fingerprint.spread is None:
        return None
    return InputSpec.model_validate(
        {
            "dtype": fingerprint.dtype,
            "whole_numbers": fingerprint.whole_numbers,
            "minimum": fingerprint.minimum,
            "maximum": fingerprint.maximum,
            "spread": fingerprint.spread,
            "channel_names": fingerprint.channel_names or (),
            "pages": fingerprint.pages,
            "orientation": fingerprint.orientation if volume else None,
            "spacing_min": fingerprint.spacing_min if volume else None,
            "spacing_max": fingerprint.spacing_max if volume else None,
            "size_min": [size.min for size in sizes],
            "size_max": [size.max for size in sizes],
        }
    )

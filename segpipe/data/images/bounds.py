"""Limits on the files that are decoded, checked on the size of a file and on its header before any pixel is decoded."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from segpipe.config import DataParams, Pages
from segpipe.errors import DataError

RESTORE_FIX = "restore the file, or remove it from the data"
"""The fix that errors advise for a damaged file."""

_CHANNELS_PER_IMAGE = 4
"""An image with more channels counts as several images."""


@dataclass(frozen=True)
class Bounds:
    """The limits for one file.

    Attributes:
        megapixels: the largest image or volume that is decoded, in millions of pixels or voxels.
        pages: how several pages of a TIFF file are read: refuse, channels or volume.
        volumes: True if volumes are allowed.
    """

    megapixels: float
    pages: Pages = "refuse"
    volumes: bool = False

    @classmethod
    def from_limits(cls, limits: DataParams | float) -> Bounds:
        """Return the bounds of params.yaml; a plain number of megapixels allows only single 2D images."""
        if isinstance(limits, DataParams):
            return cls(limits.max_megapixels, limits.pages, volumes=True)
        return cls(limits)

    def check(self, where: str, height: int, width: int, channels: int = 1, depth: int = 1) -> None:
        """Check the size of an image before it is decoded.

        Args:
            where: the name of the file in errors.
            height: in pixels.
            width: in pixels.
            channels: the number of channels; up to four count as one image, up to eight as two, and so on.
            depth: the number of slices.

        Raises:
            DataError: if the image is too large or has no pixels.
        """
        shape = (depth, height, width) if depth > 1 else (height, width)
        size = " x ".join(map(str, reversed(shape)))
        size += f", {channels} channels" if channels > _CHANNELS_PER_IMAGE else ""
        if min(height, width, channels, depth) < 1:
            raise DataError("the image has no pixels", where=where, found=size, fix=RESTORE_FIX)
        if depth * height * width * -(-channels // _CHANNELS_PER_IMAGE) > self.megapixels * 1e6:
            raise DataError(
                f"the image has too many {'voxels' if depth > 1 else 'pixels'}",
                where=where,
                found=size,
                expected=f"at most {self.megapixels:g} megapixels",
                fix="cut it into tiles, or raise the limit (max_megapixels)",
            )


def max_bytes(limits: DataParams) -> int:
    """Return the size of the largest file that is read, in bytes."""
    return int(limits.max_file_mb * 2**20)


@contextlib.contextmanager
def decoder_errors_as_data_errors(where: str) -> Iterator[None]:
    """Turn any exception of a decoder (OSError, SyntaxError, struct.error ...) into one DataError that names the file."""
    try:
        with warnings.catch_warnings():
            # decoders warn about unusual metadata, but then read the file correctly or refuse it
            warnings.simplefilter("ignore")
            yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"cannot be decoded: {error or type(error).__name__}", where=where, fix=RESTORE_FIX) from error

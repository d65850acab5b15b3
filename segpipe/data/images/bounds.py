"""What may be decoded at all: judged by a file's bytes and header, before any pixel."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from segpipe.config import DataParams, Pages
from segpipe.errors import DataError

RESTORE_FIX = "restore the file, or take it out of the data"
"""What to do about a broken file."""

_CHANNELS = 4


@dataclass(frozen=True)
class Bounds:
    """The largest image that is decoded, in millions of pixels, and what becomes of files that hold more than a picture."""

    megapixels: float
    pages: Pages = "refuse"
    volumes: bool = False

    @classmethod
    def of(cls, limits: DataParams | float) -> Bounds:
        """The bounds that params.yaml sets; a plain number of megapixels admits single pictures only."""
        if isinstance(limits, DataParams):
            return cls(limits.max_megapixels, limits.pages, volumes=True)
        return cls(limits)

    def check(self, where: str, height: int, width: int, channels: int = 1, depth: int = 1) -> None:
        """Refuse (DataError) what is too large. Four channels count as one image, five as two, and so on."""
        shape = (depth, height, width) if depth > 1 else (height, width)
        words = " x ".join(map(str, reversed(shape))) + (f", {channels} channels" if channels > _CHANNELS else "")
        if min(height, width, channels, depth) < 1:
            raise DataError("the image has no pixels", where=where, found=words, fix=RESTORE_FIX)
        if depth * height * width * -(-channels // _CHANNELS) > self.megapixels * 1e6:
            raise DataError(
                f"the image has too many {'voxels' if depth > 1 else 'pixels'}", where=where, found=words,
                expected=f"at most {self.megapixels:g} megapixels",
                fix="cut it into tiles, or raise the limit (max_megapixels)",
            )


def max_bytes(limits: DataParams) -> int:
    """The largest file that is read, in bytes."""
    return int(limits.max_file_mb * 2**20)


@contextlib.contextmanager
def decoder_errors_as_data_errors(where: str) -> Iterator[None]:
    """The many exceptions of decoders (OSError, SyntaxError, struct.error ...) for a file that is no image, as one DataError."""
    try:
        with warnings.catch_warnings():
            # decoders warn about odd metadata of files that they then read well, or refuse anyway
            warnings.simplefilter("ignore")
            yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"cannot be decoded: {error or type(error).__name__}", where=where, fix=RESTORE_FIX) from error

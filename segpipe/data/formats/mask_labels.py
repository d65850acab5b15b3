"""Labels drawn from a mask file, for each kind of mask. Each class here is a `segpipe.data.formats.source.Draw`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segpipe.config import DataParams
from segpipe.data.formats.source import Drawing, check_size
from segpipe.data.images import class_values, decode_stored, max_bytes, read_mask, read_stored
from segpipe.data.images.raster import as_upright
from segpipe.data.mask_facts import read_alpha
from segpipe.errors import DataError
from segpipe.files import read_bytes
from segpipe.samples import ClassTable

BINARY_VALUES = (0, 255)
"""The file values of background and foreground of masks that are divided at a threshold."""
BINARY_CLASSES = ClassTable.from_names(["background", "foreground"], list(BINARY_VALUES))
INSTANCE_CLASSES = ClassTable.from_names(["background", "object"])
"""The classes of a source whose instances are all of one class; `--classes nucleus` names it."""


@dataclass(frozen=True)
class LabelMap:
    """Draws class values and instances from a mask of instance ids."""

    mask: Path
    limits: DataParams

    def __call__(self, height: int, width: int) -> Drawing:
        """Return mask values 0 and 1, and the instance ids of the file, both (height, width).

        Raises:
            DataError: the mask has another size or cannot be read.
        """
        ids = read_mask(self.mask, self.limits)
        check_size(self.mask, ids, height, width)
        return Drawing((ids > 0).astype(np.uint8), ids.astype(np.uint16))


@dataclass(frozen=True)
class ValueMask:
    """Draws the class values of a mask file as they are."""

    mask: Path
    limits: DataParams

    def __call__(self, height: int, width: int) -> Drawing:
        """Return the values of the file, (height, width).

        Raises:
            DataError: the mask has another size or cannot be read.
        """
        mask = read_mask(self.mask, self.limits)
        check_size(self.mask, mask, height, width)
        return Drawing(mask)


@dataclass(frozen=True)
class ThresholdMask:
    """Draws two classes from a mask that is divided at a threshold."""

    mask: Path
    threshold: float
    limits: DataParams

    def __call__(self, height: int, width: int) -> Drawing:
        """Return 255 where the mean of the mask's channels is at least the threshold, else 0, (height, width).

        Raises:
            DataError: the mask has another size or cannot be read.
        """
        array = read_stored(self.mask, self.limits)
        check_size(self.mask, array, height, width)
        if array.ndim != 3:
            raise DataError("is a volume", where=self.mask, expected="an image", fix="omit --threshold")
        plane = array[..., 0] if array.shape[2] == 1 else array.mean(axis=2)
        background, foreground = BINARY_VALUES
        return Drawing(np.where(plane >= self.threshold, foreground, background).astype(np.uint8))


@dataclass(frozen=True)
class AlphaMask:
    """Draws class values from the alpha channel of a mask, or from its values if it has no alpha that varies."""

    mask: Path
    limits: DataParams

    def __call__(self, height: int, width: int) -> Drawing:
        """Return class values, (height, width).

        Raises:
            DataError: the mask has another size or cannot be read.
        """
        mask = self.values()
        check_size(self.mask, mask, height, width)
        return Drawing(mask)

    def values(self) -> np.ndarray:
        """Return the class values, (H, W), uint8 or uint16. Raises DataError if the mask cannot be read."""
        content = read_bytes(self.mask, max_bytes(self.limits))
        array = decode_stored(content, str(self.mask), self.limits)
        if (array == array[:1, :1]).all():
            try:
                return read_alpha(content, str(self.mask))
            except DataError:  # a mask of one value without alpha
                pass
        return class_values(array, str(self.mask))


@dataclass(frozen=True)
class NoObjects:
    """Draws the labels of an image that shows only background."""

    def __call__(self, height: int, width: int) -> Drawing:
        """Return zeros, (height, width)."""
        return Drawing(np.zeros((height, width), np.uint8))


@dataclass(frozen=True)
class TurnedMask:
    """Draws labels that were made on the stored pixels of an image, and turns them upright like the image.

    draw: draws them as they were made.
    orientation: of the image, from EXIF.
    """

    draw: Callable[[int, int], Drawing]
    orientation: int

    def __call__(self, height: int, width: int) -> Drawing:
        """Return the turned labels, (height, width).

        Raises:
            DataError: as `draw`.
        """
        is_sideways = self.orientation in (5, 6, 7, 8)
        drawing = self.draw(width, height) if is_sideways else self.draw(height, width)
        instances = drawing.instances
        return Drawing(
            np.ascontiguousarray(as_upright(drawing.mask, self.orientation)),
            None if instances is None else np.ascontiguousarray(as_upright(instances, self.orientation)),
            drawing.notes + Counter({f"masks turned upright with their image (orientation {self.orientation})": 1}),
        )


def value_file(draw: object) -> Path | None:
    """Return the mask file of class values that a drawing turns; None for any other drawing, whose classes are known."""
    if isinstance(draw, TurnedMask) and isinstance(draw.draw, ValueMask):
        return draw.draw.mask
    return None

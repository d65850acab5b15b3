"""Decode files to segment, for `segpipe predict` and the server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segpipe.config import DataParams
from segpipe.errors import DataError

if TYPE_CHECKING:
    from segpipe.data.images import Geometry


@dataclass(frozen=True)
class Input:
    """A decoded file.

    Args:
        image: (H, W, C), or for a volume (D, H, W, C), in the dtype of the file.
        geometry: Position and voxel size of a volume; None if the file does not have them.
    """

    image: np.ndarray
    geometry: Geometry | None = None

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """Size of a voxel in mm (depth, height, width); None if it is not known."""
        return None if self.geometry is None else self.geometry.spacing


def decode_input(content: bytes, where: str, limits: DataParams | float, dims: int) -> Input:
    """Decode an image or a volume.

    Args:
        content: The bytes of the file.
        where: Name of the file, for its format and for errors.
        limits: Limits on the size, or the maximum number of megapixels (or megavoxels).
        dims: What the model takes: 2 for an image, 3 for a volume.

    Raises:
        DataError: The file is of the other kind, is too large, or cannot be decoded (`segpipe.data.images.decode_image`).
    """
    from segpipe.data.images import decode_geometry, decode_image

    if dims == 3 and not isinstance(limits, DataParams):
        limits = DataParams(max_megapixels=min(limits, 1000.0))
    image = decode_image(content, where, limits)
    if image.ndim != dims + 1:
        raise DataError(
            f"the model takes {'volumes' if dims == 3 else 'images'}",
            where=where,
            found=" x ".join(map(str, image.shape[:-1])) + (" voxels" if image.ndim == 4 else " pixels"),
            expected="a volume (.nii.gz)" if dims == 3 else "a single image",
            fix="give files of the same kind as the training data",
        )
    return Input(image, decode_geometry(content, where))

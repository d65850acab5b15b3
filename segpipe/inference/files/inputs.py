"""A file that someone wants segmented, decoded: what `segpipe predict` and the server have in common."""

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
    """image: (H, W, C), of a volume (D, H, W, C). geometry: where a volume lies; None where its file does not tell."""

    image: np.ndarray
    geometry: Geometry | None = None

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """Size of a voxel in mm, by axis."""
        return None if self.geometry is None else self.geometry.spacing


def decode_input(content: bytes, where: str, limits: DataParams | float, dims: int) -> Input:
    """Decode an image (`dims` 2) or a volume (3), as the model takes. Raises DataError for the other kind, and for what
    `segpipe.data.images.decode_image` refuses; a plain number of megapixels bounds voxels just as well.
    """
    from segpipe.data.images import decode_geometry, decode_image

    if dims == 3 and not isinstance(limits, DataParams):
        limits = DataParams(max_megapixels=min(limits, 1000.0))
    image = decode_image(content, where, limits)
    if image.ndim != dims + 1:
        raise DataError(
            f"the model takes {'volumes' if dims == 3 else 'images'}",
            where=where,
            found=" x ".join(map(str, image.shape[:-1])) + " pixels",
            expected="a volume (.nii.gz)" if dims == 3 else "one picture",
            fix="give files of the kind that the model was trained on",
        )
    return Input(image, decode_geometry(content, where))

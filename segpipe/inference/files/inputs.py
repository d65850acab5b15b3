"""Decode files to segment, for `segpipe predict` and the server: as the training images were, or not at all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from segpipe.config import DataParams
from segpipe.errors import DataError
from segpipe.inference.input_contract.values import to_training_values
from segpipe.inference.spec import SegmenterSpec

if TYPE_CHECKING:
    from segpipe.data.images import Geometry


@dataclass(frozen=True)
class Input:
    """A decoded file, converted to what the model takes.

    Args:
        image: (H, W, C), or for a volume (D, H, W, C), with the channels, values and order of voxels of the training images.
        geometry: Position and voxel size of a volume; None if the file does not have them.
        notes: The conversions that were made, and what is unusual, for the user.
    """

    image: np.ndarray
    geometry: Geometry | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """Size of a voxel in mm (depth, height, width); None if it is not known."""
        return None if self.geometry is None else self.geometry.spacing


def decode_input(content: bytes, where: str, limits: DataParams | float, model: SegmenterSpec) -> Input:
    """Decode an image or a volume, and convert it to what the model takes where that is exact.

    Args:
        content: The bytes of the file.
        where: Name of the file, for its format and for errors.
        limits: Limits on the size, or the maximum number of megapixels (or megavoxels).
        model: The model. One of an older version of segpipe has no `input`; it gets values and voxels as the file stores them.

    Raises:
        DataError: The file is of another kind, is too large, or cannot be decoded (`segpipe.data.images.decode_image`); or its channels,
            values or orientation differ from those of the training images, and nothing says how to convert them.
    """
    from segpipe.data.images import channel_names, decode_geometry, decode_image_with_notes

    spec = model.input
    image, notes = decode_image_with_notes(content, where, _limits_of_model(limits, model))
    if image.ndim != model.dims + 1:
        raise DataError(
            f"the model takes {'volumes' if model.dims == 3 else 'images'}",
            where=where,
            found=" x ".join(map(str, image.shape[:-1])) + (" voxels" if image.ndim == 4 else " pixels"),
            expected="a volume (.nii.gz)" if model.dims == 3 else "a single image",
            fix="give files of the same kind as the training data",
        )
    geometry = decode_geometry(content, where)
    if model.dims == 3:
        image, geometry, notes = _in_training_order(image, geometry, notes, where, model)
    if spec is None:
        return Input(image, geometry, notes)
    try:
        image, order_notes = spec.in_channel_order(image, channel_names(content, where))
        value_notes: list[str] = []
        if model.needs_training_values and image.shape[-1] in (1, 3, model.normalisation.channels):
            image, value_notes = to_training_values(image, spec)
    except DataError as error:  # the conversions get an array and cannot name the file
        raise DataError(error.what, where=where, found=error.found, expected=error.expected, fix=error.fix) from error
    return Input(image, geometry, [*notes, *order_notes, *value_notes, *spec.size_notes(image.shape[:-1])])


def _limits_of_model(limits: DataParams | float, model: SegmenterSpec) -> DataParams | float:
    """Return limits that also say how pages of a TIFF file are read: as for the training images."""
    pages = model.input.pages if model.input is not None else "refuse"
    if isinstance(limits, DataParams):
        return limits.model_copy(update={"pages": pages}) if model.input is not None else limits
    if model.dims == 3 or pages != "refuse":
        return DataParams(max_megapixels=min(limits, 1000.0), pages=pages)
    return limits


def _in_training_order(
    image: np.ndarray, geometry: Geometry | None, notes: list[str], where: str, model: SegmenterSpec
) -> tuple[np.ndarray, Geometry | None, list[str]]:
    """Return a decoded volume in the order of voxels of the training volumes, its geometry, and the notes that still apply.

    Raises:
        DataError: The training volumes state their orientation, and this volume does not.
    """
    orientation = model.input.orientation if model.input is not None else None
    if orientation is not None:
        if geometry is None or geometry.orientation is None:
            raise DataError(
                "the file does not state its orientation",
                where=where,
                found="neither qform nor sform" if geometry is not None else "a format without orientation",
                expected=f"a NIfTI volume with an orientation, which is turned to {orientation} like the training volumes",
                fix="write the orientation into the header (qform or sform)",
            )
        return image, geometry, notes
    if geometry is None or not geometry.is_turned:
        return image, geometry, notes
    return (
        geometry.to_stored(image),
        geometry.as_stored(),
        [note for note in notes if not note.startswith("turned from")],
    )

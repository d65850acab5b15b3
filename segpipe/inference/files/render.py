"""Masks, overlays and class shares of a prediction.

The server and `segpipe predict` both use these functions, so that they return identical bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel

from segpipe.errors import DataError
from segpipe.samples import ClassTable, Prediction

if TYPE_CHECKING:
    from segpipe.data.images import Geometry


class ClassShare(BaseModel):
    """The share of an image that one class covers."""

    name: str
    value: int
    """The value of the class in mask files."""
    color: tuple[int, int, int]
    """RGB, 0..255."""
    pixels: int
    share: float
    """Share of all pixels, 0..1."""


def mask_png(prediction: Prediction, classes: ClassTable) -> bytes:
    """Encode the mask of an image.

    Args:
        prediction: The prediction of an image.
        classes: The model's class table.

    Returns:
        A PNG (H, W) with the pixel values of the training masks: uint8, or uint16 if a value is above 255.
    """
    from segpipe.data.images import encode_png

    return encode_png(classes.decode(prediction.class_ids))


def mask_nifti(prediction: Prediction, classes: ClassTable, geometry: Geometry | None) -> bytes:
    """Encode the mask of a volume.

    Args:
        prediction: The prediction of a volume.
        classes: The model's class table.
        geometry: Position and voxel size of the input, which the mask gets too.

    Returns:
        A .nii.gz (D, H, W) with the values of the training masks: uint8, or uint16 if a value is above 255.
    """
    from segpipe.data.images import encode_nifti

    return encode_nifti(classes.decode(prediction.class_ids), geometry)


def overlay_png(image: np.ndarray, prediction: Prediction, classes: ClassTable, alpha: float = 0.45) -> bytes:
    """Draw the predicted classes over an image. Instances are outlined, each in its own colour.

    Args:
        image: (H, W, C), or (D, H, W, C), of which the slice with the most predicted classes is drawn.
        prediction: The prediction of the image.
        classes: The model's class table.
        alpha: Opacity of the classes: 0 draws only the image, 1 only the classes.

    Returns:
        A PNG (H, W, 3), RGB.
    """
    from segpipe.data.drawing import outline_instances, overlay
    from segpipe.data.images import encode_png

    drawn = overlay(image, prediction.class_ids, classes.palette, alpha)
    if prediction.instances is not None and prediction.instances.ids.ndim == 2:
        drawn = outline_instances(drawn, prediction.instances.ids)
    return encode_png(drawn)


def displayed_channels(image: np.ndarray, channel: int | None) -> np.ndarray:
    """Select the channel of an image that is drawn.

    Args:
        image: (..., C).
        channel: Index of a channel; None for all, of which the first three or the first are drawn.

    Raises:
        DataError: There is no such channel.
    """
    if channel is None:
        return image
    if channel >= image.shape[-1]:
        raise DataError("there is no such channel", found=f"channel={channel}", expected=f"0 to {image.shape[-1] - 1}")
    return image[..., channel : channel + 1]


def class_shares(prediction: Prediction, classes: ClassTable) -> list[ClassShare]:
    """Count the pixels of each class.

    Args:
        prediction: The prediction of an image or volume.
        classes: The model's class table.

    Returns:
        One entry per class, in the order of the class table. The shares add up to 1, unless classes overlap.
    """
    counts = classes.labelling.count_pixels(prediction.class_ids)
    return [
        ClassShare(
            name=spec.name,
            value=spec.value,
            color=spec.color,
            pixels=int(n),
            share=float(n / prediction.class_ids.size),
        )
        for spec, n in zip(classes.classes, counts, strict=True)
    ]

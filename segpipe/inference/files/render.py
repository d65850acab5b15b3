"""What a prediction looks like outside: the mask file, the overlay, the share of each class. The server and `segpipe predict`
both write with these, so that a downloaded mask and a predicted one are the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel

from segpipe.samples import ClassTable, Prediction

if TYPE_CHECKING:
    from segpipe.data.images import Geometry


class ClassShare(BaseModel):
    """How much of an image one class covers."""

    name: str
    value: int
    """What stands for the class in mask files."""
    color: tuple[int, int, int]
    pixels: int
    share: float


def mask_png(prediction: Prediction, classes: ClassTable) -> bytes:
    """A PNG (H, W) with the pixel values that training masks have, uint8 (uint16 where a value is above 255)."""
    from segpipe.data.images import encode_png

    return encode_png(classes.decode(prediction.class_ids))


def mask_nifti(prediction: Prediction, classes: ClassTable, geometry: Geometry | None) -> bytes:
    """A .nii.gz (D, H, W) with the values that training masks have, uint8 or uint16, where the input lay: with its affine."""
    from segpipe.data.images import encode_nifti

    return encode_nifti(classes.decode(prediction.class_ids), geometry)


def overlay_png(image: np.ndarray, prediction: Prediction, classes: ClassTable, alpha: float = 0.45) -> bytes:
    """A PNG (H, W, 3): the image (H, W, C) with classes drawn over it; `alpha` 0 shows none of their colour, 1 only that. Of a
    volume (D, H, W, C), the slice with the most of them. Objects are outlined, each in a colour of its own."""
    from segpipe.data.drawing import outline_instances, overlay
    from segpipe.data.images import encode_png

    drawn = overlay(image, prediction.class_ids, classes.palette, alpha)
    if prediction.instances is not None and prediction.instances.ids.ndim == 2:
        drawn = outline_instances(drawn, prediction.instances.ids)
    return encode_png(drawn)


def class_shares(prediction: Prediction, classes: ClassTable) -> list[ClassShare]:
    """Pixels and share of every class, in the order of the class table; the shares of an image add up to 1, unless classes overlap."""
    counts = classes.labelling.pixels(prediction.class_ids)
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

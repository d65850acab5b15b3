"""The gallery of a model: the worst, the typical and the best images, each with its truth, the prediction and the errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from segpipe.evaluation.gallery.planes import flatten
from segpipe.files import read_json, write_bytes, write_json
from segpipe.metrics import Values
from segpipe.samples import IGNORE, ClassTable

EDGE = 480
"""Longest edge of a picture in pixels."""

BACKGROUNDS = {"background", "bg", "_background_", "__background__", "unlabelled", "unlabeled"}
"""Names of a first class that is a background: predicting another class there is a false alarm."""

Kind = Literal["worst", "typical", "best"]

LAYERS = ("image", "truth", "prediction", "errors")
"""The layers of every picture."""


class ErrorKind(BaseModel):
    """The meaning of a colour of the error picture."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    color: tuple[int, int, int]


ERRORS = (
    ErrorKind(name="right", color=(0, 158, 115)),
    ErrorKind(name="false alarm", color=(213, 94, 0)),
    ErrorKind(name="missed", color=(86, 180, 233)),
    ErrorKind(name="other class", color=(204, 121, 167)),
)
"""The kinds of errors, in the colours of Okabe and Ito, which the colour-blind can distinguish; the code of a kind is its index + 1.

If the first class is a background: "right" are TP, "false alarm" FP, "missed" FN, and "other class" are pixels of a class that is taken
for another. Without a background, only the pixels with another class are marked.
"""


class Picture(BaseModel):
    """One image of a gallery: its score alone, and its files next to index.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    key: str
    kind: Kind
    iou_macro: float
    accuracy: float
    height: int
    width: int
    image: str
    truth: str
    prediction: str
    errors: str
    extra: dict[str, str] = {}
    """The files of further layers, by what they show in one word (instances, axial)."""

    @property
    def layers(self) -> dict[str, str]:
        """The file of every layer by its name, in the order of the buttons on pages."""
        return {layer: getattr(self, layer) for layer in LAYERS} | self.extra


class Gallery(BaseModel):
    """The content of a gallery's index.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    legend: list[ErrorKind]
    """The kinds of errors that can occur with the classes."""
    pictures: list[Picture]

    @classmethod
    def read(cls, folder: Path) -> Gallery:
        """Read index.json of a gallery folder."""
        return cls.model_validate(read_json(folder / "index.json"))

    def write(self, folder: Path) -> None:
        """Write index.json into a gallery folder."""
        write_json(folder / "index.json", self.model_dump(mode="json"))


def choose_pictures(values: Values, per_kind: int) -> list[tuple[Kind, int]]:
    """Choose the images of a gallery; no image is chosen twice.

    Args:
        values: (images,), a score of each image; images with NaN are not chosen.
        per_kind: the largest number of images of each kind.

    Returns:
        (kind, index) of each image, from the worst to the best; "typical" are those around the median.
    """
    order = [int(i) for i in np.argsort(values, kind="stable")[: int((~np.isnan(values)).sum())]]
    count = min(per_kind, -(-len(order) // 3))
    worst, best = order[:count], order[max(len(order) - count, count) :]
    middle = order[len(worst) : len(order) - len(best)]
    start = max(0, (len(middle) - count) // 2)
    typical = middle[start : start + count]
    return [("worst", i) for i in worst] + [("typical", i) for i in typical] + [("best", i) for i in best]


def legend(classes: ClassTable) -> list[ErrorKind]:
    """Return the kinds of errors that can occur with these classes."""
    if not has_background(classes):
        return [ERRORS[3]]
    return list(ERRORS if len(classes) > 2 else ERRORS[:3])


def has_background(classes: ClassTable) -> bool:
    """Return whether the first class is a background, by its name."""
    return classes.names[0].strip().lower() in BACKGROUNDS


def error_codes(
    truth: npt.NDArray[np.uint8], prediction: npt.NDArray[np.uint8], background: bool, overlapping: bool = False
) -> npt.NDArray[np.uint8]:
    """Find the kind of error of each pixel.

    Args:
        truth: (H, W), labels and `IGNORE`.
        prediction: (H, W), labels.
        background: whether class 0 is a background.
        overlapping: whether labels are sets of classes. Then a pixel with a class too many is a false alarm, one that lacks a class is
            missed, and one with both errors has another class.

    Returns:
        (H, W), codes of `ERRORS`, from 1. 0 are ignored pixels, background that is predicted as such and, if no class is a background,
        all pixels that are right.
    """
    right = truth == prediction
    codes = np.where(right, 0, 4).astype(np.uint8)
    if background:
        codes[right & (truth != 0)] = 1
        codes[~right & ((truth & ~prediction if overlapping else truth) == 0)] = 2
        codes[~right & ((prediction & ~truth if overlapping else prediction) == 0)] = 3
    codes[truth == IGNORE] = 0
    return codes


def error_picture(display: npt.NDArray[np.uint8], codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Draw errors on an image: the image in pale grey, right pixels tinted, errors in full colour.

    Args:
        display: (H, W, 3), RGB.
        codes: (H, W), from `error_codes`.

    Returns:
        (H, W, 3), RGB.
    """
    grey = display.astype(np.float32).mean(2, keepdims=True) * 0.6 + 90
    colors = np.array([(0, 0, 0), *(e.color for e in ERRORS)], np.float32)[codes]
    weight = np.array([0.0, 0.28, 0.85, 0.85, 0.85], np.float32)[codes][:, :, None]
    return np.clip(grey * (1 - weight) + colors * weight, 0, 255).astype(np.uint8)


def draw(
    image: np.ndarray,
    truth: npt.NDArray[np.uint8],
    prediction: npt.NDArray[np.uint8],
    classes: ClassTable,
    spacing: Sequence[float] | None = None,
    instances: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
) -> dict[str, npt.NDArray[np.uint8]]:
    """Draw the four layers of an image.

    Args:
        image: (H, W, C), or a volume (D, H, W, C), of which three planes are drawn (`segpipe.evaluation.gallery.planes`).
        truth: (H, W) or (D, H, W), labels.
        prediction: labels, of the same shape.
        classes: the classes, with their colours.
        spacing: size of a voxel in mm along each axis; the planes of a volume are drawn in these proportions.
        instances: the instance ids of truth and prediction, (H, W), whose outlines are drawn; None if there are none.

    Returns:
        (h, w, 3), RGB, by the names in `LAYERS`; the longest edge is at most `EDGE`.
    """
    from segpipe.data.drawing import outline_instances, overlay, thumbnail, to_display

    if truth.ndim == 3:
        image, truth, prediction = flatten(image, truth, prediction, spacing)
    small = thumbnail(to_display(image), EDGE)
    truth, prediction = (resize_mask(mask, small.shape[:2]) for mask in (truth, prediction))
    overlays = [overlay(small, mask, classes.palette) for mask in (truth, prediction)]
    overlays = [
        outline_instances(picture, resize_mask(ids, small.shape[:2])) if ids is not None and ids.ndim == 2 else picture
        for picture, ids in zip(overlays, instances, strict=True)
    ]
    codes = error_codes(truth, prediction, has_background(classes), classes.overlapping)
    return {
        "image": small,
        "truth": overlays[0],
        "prediction": overlays[1],
        "errors": error_picture(small, codes),
    }


def resize_mask(mask: npt.NDArray[np.uint8], size: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Resize a mask to (height, width) by the nearest pixel, so that no new ids appear."""
    rows, columns = ((np.arange(n) + 0.5) * (old / n) for n, old in zip(size, mask.shape, strict=True))
    return mask[rows.astype(np.intp)[:, None], columns.astype(np.intp)]


def save(folder: Path, stem: str, pictures: dict[str, npt.NDArray[np.uint8]]) -> dict[str, str]:
    """Write the layers of one image as PNG files.

    Args:
        folder: the folder of the gallery.
        stem: the beginning of the file names.
        pictures: (h, w, 3), RGB, by the name of the layer.

    Returns:
        The file names, by the name of the layer.
    """
    from segpipe.data.images import encode_png

    names = {layer: f"{stem}-{layer}.png" for layer in pictures}
    for layer, picture in pictures.items():
        write_bytes(folder / names[layer], encode_png(picture))
    return names

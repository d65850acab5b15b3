"""Pictures of what a model did: the worst, the typical and the best images, each as itself, truth, prediction and errors."""

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
"""Names of a first class that stands for nothing in particular: finding something there is a false alarm."""

Kind = Literal["worst", "typical", "best"]

LAYERS = ("image", "truth", "prediction", "errors")
"""What every picture shows."""


class ErrorKind(BaseModel):
    """What a colour of the error picture means."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    color: tuple[int, int, int]


ERRORS = (
    ErrorKind(name="right", color=(0, 158, 115)),
    ErrorKind(name="false alarm", color=(213, 94, 0)),
    ErrorKind(name="missed", color=(86, 180, 233)),
    ErrorKind(name="other class", color=(204, 121, 167)),
)
"""Colours of Okabe and Ito, which the colour-blind tell apart; the picture's place in the table is its code, from 1.

Where the first class is a background: TP is right, FP false alarm, FN missed, and other class an object taken for another.
Where there is none, only the pixels with another class are marked.
"""


class Picture(BaseModel):
    """One image of a gallery: its score on its own, and its files beside index.json."""

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
    """Further layers: what each shows, in a word (instances, axial) -> its file."""

    @property
    def layers(self) -> dict[str, str]:
        """Every layer's file by what it shows, in the order in which pages offer them."""
        return {layer: getattr(self, layer) for layer in LAYERS} | self.extra


class Gallery(BaseModel):
    """index.json of a gallery."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    legend: list[ErrorKind]
    """The error kinds that can occur with these classes."""
    pictures: list[Picture]

    @classmethod
    def read(cls, folder: Path) -> Gallery:
        """Read index.json of a gallery folder."""
        return cls.model_validate(read_json(folder / "index.json"))

    def write(self, folder: Path) -> None:
        """Write index.json into a gallery folder."""
        write_json(folder / "index.json", self.model_dump(mode="json"))


def choose_pictures(values: Values, each: int) -> list[tuple[Kind, int]]:
    """Which images to draw, at most `each` of a kind and none twice: (kind, place), from the worst to the best.

    values: (images,), a score of each image; NaN is passed over. `typical` are those around the median.
    """
    order = [int(i) for i in np.argsort(values, kind="stable")[: int((~np.isnan(values)).sum())]]
    count = min(each, -(-len(order) // 3))
    worst, best = order[:count], order[max(len(order) - count, count) :]
    between = order[len(worst) : len(order) - len(best)]
    start = max(0, (len(between) - count) // 2)
    typical = between[start : start + count]
    return [("worst", i) for i in worst] + [("typical", i) for i in typical] + [("best", i) for i in best]


def legend(classes: ClassTable) -> list[ErrorKind]:
    """The error kinds that can occur with these classes."""
    if not has_background(classes):
        return [ERRORS[3]]
    return list(ERRORS if len(classes) > 2 else ERRORS[:3])


def has_background(classes: ClassTable) -> bool:
    """Whether the first class stands for nothing in particular."""
    return classes.names[0].strip().lower() in BACKGROUNDS


def error_codes(
    truth: npt.NDArray[np.uint8], prediction: npt.NDArray[np.uint8], background: bool, overlapping: bool = False
) -> npt.NDArray[np.uint8]:
    """(H, W) class ids -> (H, W): a place in `ERRORS` from 1, or 0 where there is nothing to say: on ignored pixels, on
    background seen as such and, where no class is a background, on all that is right.

    overlapping: of sets, a pixel to which the prediction gives a class too many is a false alarm, one that lacks a class is missed,
    and one with both errors has another class.
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
    """(H, W, 3) RGB and (H, W) codes -> (H, W, 3): the image in pale grey, what is right tinted, errors in full colour."""
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
    objects: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
) -> dict[str, npt.NDArray[np.uint8]]:
    """The four pictures of an image, (h, w, 3) RGB with the longest edge at most `EDGE`, by name.

    image: (H, W, C), as stored. truth, prediction: (H, W), class ids. Of a volume, with D before, three planes are drawn
    (`segpipe.evaluation.gallery.planes`), in proportions by `spacing`, mm by axis. objects: ids of the true and of the predicted objects
    of an image, (H, W), which are outlined one by one.
    """
    from segpipe.data.drawing import outline_instances, overlay, thumbnail, to_display

    if truth.ndim == 3:
        image, truth, prediction = flatten(image, truth, prediction, spacing)
    small = thumbnail(to_display(image), EDGE)
    truth, prediction = (resize_mask(mask, small.shape[:2]) for mask in (truth, prediction))
    drawn = [overlay(small, mask, classes.palette) for mask in (truth, prediction)]
    drawn = [
        outline_instances(picture, resize_mask(ids, small.shape[:2])) if ids is not None and ids.ndim == 2 else picture
        for picture, ids in zip(drawn, objects, strict=True)
    ]
    codes = error_codes(truth, prediction, has_background(classes), classes.overlapping)
    return {
        "image": small,
        "truth": drawn[0],
        "prediction": drawn[1],
        "errors": error_picture(small, codes),
    }


def resize_mask(mask: npt.NDArray[np.uint8], size: Sequence[int]) -> npt.NDArray[np.uint8]:
    """The nearest class ids at (height, width); no new ids appear."""
    rows, columns = ((np.arange(n) + 0.5) * (have / n) for n, have in zip(size, mask.shape, strict=True))
    return mask[rows.astype(np.intp)[:, None], columns.astype(np.intp)]


def save(folder: Path, stem: str, pictures: dict[str, npt.NDArray[np.uint8]]) -> dict[str, str]:
    """Write the pictures of one image as PNG; their file names by what they show."""
    from segpipe.data.images import encode_png

    names = {what: f"{stem}-{what}.png" for what in pictures}
    for what, picture in pictures.items():
        write_bytes(folder / names[what], encode_png(picture))
    return names

"""The types that all rooms share: ClassTable, Sample, Instances and Prediction.

Inside segpipe a label array holds *class ids* ``0 .. n_classes - 1`` and `IGNORE`. The values that mask files store (0, 128 and 255,
for example) are converted by `ClassTable.encode` when a mask is read. If classes overlap, a label array holds sets of classes instead
of class ids (`segpipe.labels`).
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from segpipe.labels import MAX_OVERLAPPING_CLASSES, Labelling, labelling_of

IGNORE = 255
"""The label of an ignored pixel: it counts neither in the loss nor in a score."""

UNKNOWN = 254
"""The label of a pixel whose file value is not in the class table. Validation reports such pixels as errors; training never sees them."""

MAX_CLASSES = 250
"""The largest number of classes: class ids are uint8, and the last few values are reserved."""

_BAND_PIXELS = 1 << 20

_PALETTE = bytes.fromhex(
    "000000 e69f00 56b4e9 009e73 f0e442 0072b2 d55e00 cc79a7 804080 6b8e23 4682b4 dc143c 999999 770b20 003c64 be9999"
)
"""Colours (RGB) of classes without a colour of their own: first the colour-blind safe set of Okabe and Ito (2008), then colours
similar to those of Cityscapes."""


def default_color(index: int) -> tuple[int, int, int]:
    """Return the default colour (RGB, 0..255) of a class id; the same id always has the same colour."""
    if 3 * index < len(_PALETTE):
        red, green, blue = _PALETTE[3 * index : 3 * index + 3]
    else:
        red, green, blue = ((index * factor) % 200 + 40 for factor in (97, 57, 131))
    return red, green, blue


class ClassSpec(BaseModel):
    """One class of a dataset.

    Attributes:
        name: the name of the class.
        value: the pixel value of the class in mask files, 0..65535.
        color: the colour in which the class is drawn, RGB 0..255.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(min_length=1)
    value: int = Field(ge=0, le=65535)
    color: tuple[int, int, int]


class ClassTable(BaseModel):
    """The classes of a dataset.

    Attributes:
        classes: the classes in the order of their class ids.
        ignore: pixel values of mask files that count neither in the loss nor in a score.
        overlapping: True if a pixel may have several classes. The value of each class is then a bit (1, 2, 4 ...), and the value of
            a pixel is the sum over its classes. The first class is the background, with value 0: pixels without any other class.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    classes: tuple[ClassSpec, ...] = Field(min_length=2, max_length=MAX_CLASSES)
    ignore: tuple[int, ...] = ()
    overlapping: bool = Field(False, exclude_if=operator.not_)  # keeps the hashes of tables without it

    @model_validator(mode="after")
    def _distinct(self) -> ClassTable:
        values = [c.value for c in self.classes] + list(self.ignore)
        if len(set(values)) != len(values):
            raise ValueError(f"pixel values must differ from each other, found {values}")
        names = [c.name for c in self.classes]
        if len(set(names)) != len(names):
            raise ValueError(f"class names must differ from each other, found {names}")
        if self.overlapping:
            self._check_bits()
        return self

    def _check_bits(self) -> None:
        background, *bits = (c.value for c in self.classes)
        if background != 0 or any(value.bit_count() != 1 for value in bits):
            raise ValueError(
                f"the values of overlapping classes must be 0 (background), then bits (1, 2, 4 ...), found {[background, *bits]}"
            )
        if len(self.classes) > MAX_OVERLAPPING_CLASSES:
            raise ValueError(
                f"at most {MAX_OVERLAPPING_CLASSES - 1} classes besides the background can overlap, found {len(bits)}"
            )
        if sets := [value for value in self.ignore if not value & ~sum(bits)]:
            raise ValueError(f"ignored values {sets} are sums of class values; 65535 never is one")

    @classmethod
    def from_names(cls, names: list[str], values: list[int] | None = None, ignore: tuple[int, ...] = ()) -> ClassTable:
        """Create a table of exclusive classes with default colours.

        Args:
            names: the names of the classes, by class id.
            values: the pixel values of the classes in mask files; by default their class ids.
            ignore: pixel values of mask files that are ignored.
        """
        class_values = values if values is not None else list(range(len(names)))
        specs = tuple(
            ClassSpec(name=name, value=value, color=default_color(index))
            for index, (name, value) in enumerate(zip(names, class_values, strict=True))
        )
        return cls(classes=specs, ignore=ignore)

    @property
    def names(self) -> list[str]:
        """The names of the classes, by class id."""
        return [c.name for c in self.classes]

    @property
    def colors(self) -> npt.NDArray[np.uint8]:
        """The colours of the classes, (n_classes, 3), RGB 0..255, by class id."""
        return np.array([c.color for c in self.classes], np.uint8)

    @cached_property
    def labelling(self) -> Labelling:
        """The meaning of label values: one class, or a set of classes."""
        return labelling_of(len(self.classes), self.overlapping)

    @property
    def palette(self) -> npt.NDArray[np.uint8]:
        """The colours of the labels, (n_labels, 3), RGB 0..255; the colour of a set of classes is the mean of their colours."""
        return self.labelling.palette(self.colors)

    def __len__(self) -> int:
        return len(self.classes)

    def encode(self, mask: np.ndarray) -> npt.NDArray[np.uint8]:
        """Convert the pixel values of a mask file to labels.

        Args:
            mask: uint8 or uint16, any shape.

        Returns:
            uint8 labels of the same shape; `IGNORE` for ignored values, `UNKNOWN` for values that are not in the table.
        """
        table = np.full(65536, UNKNOWN, np.uint8)
        for label, value in self._values_by_label().items():
            table[value] = label
        table[list(self.ignore)] = IGNORE
        values, labels = np.ascontiguousarray(mask).reshape(-1), np.empty(mask.size, np.uint8)
        for start in range(0, mask.size, _BAND_PIXELS):  # numpy makes a 64-bit copy of the indices
            band = slice(start, start + _BAND_PIXELS)
            labels[band] = table[values[band]]
        return labels.reshape(mask.shape)

    def decode(self, labels: np.ndarray) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        """Convert labels to the pixel values of a mask file.

        Args:
            labels: uint8, any shape.

        Returns:
            An array of the same shape; uint8 if all values of the table fit, otherwise uint16. Ignored pixels get the first ignored
            value of the table, or 255.
        """
        values = self._values_by_label()
        largest = max([*values.values(), *self.ignore, 255])
        table = np.zeros(256, np.uint8 if largest <= 255 else np.uint16)
        table[IGNORE] = self.ignore[0] if self.ignore else 255
        for label, value in values.items():
            table[label] = value
        return table[labels]

    def _values_by_label(self) -> dict[int, int]:
        """Return the pixel value of each label; that of a set of classes is the sum of their values."""
        values = np.array([c.value for c in self.classes])
        sums = self.labelling.members @ values
        return {label: int(sums[label]) for label in np.flatnonzero(self.labelling.members.any(1)).tolist()}


def instance_classes(
    labels: np.ndarray, ids: np.ndarray
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Find the class of each instance by majority.

    Args:
        labels: uint8 class ids, (H, W) or (D, H, W).
        ids: instance ids with the same shape, any unsigned integer type; 0 is the background.

    Returns:
        ids: (n,), the distinct ids in ascending order, including 0 if it occurs.
        labels: (n,), the most frequent label of each.
        pixels: (n,), the number of pixels with that id and label.
    """
    distinct, index = np.unique(ids, return_inverse=True)
    votes = np.bincount(index.reshape(-1) * 256 + labels.reshape(-1), minlength=len(distinct) * 256).reshape(-1, 256)
    return distinct.astype(np.int64), votes.argmax(1), votes.sum(1)


@dataclass(frozen=True)
class Instances:
    """The instances of one image. No two share a pixel, so their memory is bounded by the size of the image.

    Attributes:
        ids: (H, W) or (D, H, W), uint16: 0 for background, k for pixels of instance k = 1 .. n. Each instance has at least one pixel.
        classes: (n,), int64, the class id of each instance, beginning with instance 1.
        scores: (n,), float64, 0..1, the confidence of the model in each instance.
        boxes: (n, 2 or 3, 2), int64: for each axis of `ids` the index of the first pixel and one past the last pixel.
        MAX_COUNT: the largest number of instances in an image.
    """

    ids: npt.NDArray[np.uint16]
    classes: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    boxes: npt.NDArray[np.int64]

    MAX_COUNT: ClassVar[int] = 65535

    def __len__(self) -> int:
        return len(self.classes)

    @classmethod
    def from_map(cls, ids: np.ndarray, classes: npt.ArrayLike, scores: npt.ArrayLike) -> Instances:
        """Create instances from a map of ids. Ids without a pixel are removed, and the others are renumbered without gaps.

        Args:
            ids: (H, W) or (D, H, W), any integer type: 0 for background, 1 .. n for instances.
            classes: (n,), the class id of each instance.
            scores: (n,), the score of each instance, 0..1.

        Raises:
            ValueError: if an id has no class or no score, or if there are more than `MAX_COUNT` instances.
        """
        from scipy import ndimage

        class_ids, confidences = np.asarray(classes, np.int64), np.asarray(scores, np.float64)
        if len(class_ids) != len(confidences) or (ids.size and int(ids.max()) > len(class_ids)):
            raise ValueError(f"ids up to {ids.max(initial=0)}, {len(class_ids)} classes and {len(confidences)} scores")
        slices = ndimage.find_objects(ids, max_label=len(class_ids))
        present = np.array([box is not None for box in slices], bool)
        if present.sum() > cls.MAX_COUNT:
            raise ValueError(f"{present.sum()} instances, at most {cls.MAX_COUNT} fit")
        table = np.zeros(len(class_ids) + 1, np.uint16)
        table[1:][present] = np.arange(1, present.sum() + 1)
        boxes = [[(part.start, part.stop) for part in box] for box in slices if box is not None]
        box_array = np.array(boxes, np.int64).reshape(len(boxes), ids.ndim, 2)
        return cls(table[ids], class_ids[present], confidences[present], box_array)

    def areas(self) -> npt.NDArray[np.int64]:
        """Count the pixels of each instance, (n,)."""
        return np.bincount(self.ids.reshape(-1), minlength=len(self) + 1)[1:]

    def class_map(self) -> npt.NDArray[np.uint8]:
        """Return the class id of each pixel, with the shape of `ids`: that of its instance, 0 for background."""
        return np.append(0, self.classes).astype(np.uint8)[self.ids]


@dataclass(frozen=True)
class Sample:
    """One labelled image or volume.

    Attributes:
        key: the name of the image in its dataset.
        image: (H, W, C), or (D, H, W, C) for a volume; uint8, uint16 or float32, as stored (not normalised).
        labels: (H, W) or (D, H, W), uint8 class ids (or sets of classes), `IGNORE` for ignored pixels; None without a mask.
        instances: uint16 instance ids with the shape of `labels`, 0 for background; None if the image has no instances.
        group: images of one group (patient, slide, video) are never in two splits; None without a group.
        spacing: size of a voxel in mm, by axis of `labels`; None if the file does not state it.
        meta: further facts about the image.
    """

    key: str
    image: np.ndarray
    labels: npt.NDArray[np.uint8] | None = None
    instances: npt.NDArray[np.uint16] | None = None
    group: str | None = None
    spacing: tuple[float, ...] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def true_instances(self) -> Instances:
        """Return the annotated instances, each with the class of most of its pixels and the score 1.

        Instances that lie mostly on ignored or background pixels (class 0) are left out. `labels` and `instances` must not be None.
        """
        assert self.labels is not None and self.instances is not None, "a labelled sample of a dataset with instances"
        ids, classes, _ = instance_classes(self.labels, self.instances)
        valid = (ids > 0) & (classes > 0) & (classes != IGNORE)
        count = int(valid.sum())
        table = np.zeros(1 << 16, np.int32)
        table[ids[valid]] = np.arange(1, count + 1)
        return Instances.from_map(table[self.instances], classes[valid], np.ones(count))


@dataclass(frozen=True)
class Prediction:
    """The prediction of a `segpipe.inference.segmenter.Segmenter` for one image.

    Attributes:
        class_ids: (H, W) or (D, H, W), uint8; if classes overlap, sets of classes.
        probabilities: (n_classes, H, W), float32; they add up to 1 over classes unless classes overlap. None unless requested.
        instances: the predicted instances; None unless requested, and if the model predicts none.
        distance: (H, W), float32, 0..1: the depth of a pixel inside its instance. None unless probabilities were requested, and for
            a model that did not learn it (`segpipe.training.sampling.distance`).
    """

    class_ids: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float32] | None = None
    instances: Instances | None = None
    distance: npt.NDArray[np.float32] | None = None

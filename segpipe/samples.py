"""The nouns that walk through the house: ClassTable, Sample, Instances, Prediction.

Inside segpipe a label array holds *class ids* ``0 .. n_classes - 1`` and `IGNORE`; what a mask file stores (0/128/255, say) is
the business of `ClassTable.values` and ends at the door. Where classes overlap, it holds sets of them instead of ids
(`segpipe.labels`).
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
"""The label of a pixel that counts nowhere: not in the loss, not in a score."""

UNKNOWN = 254
"""The label of a pixel whose file value the class table does not know. Validation refuses it; training never sees it."""

MAX_CLASSES = 250
"""Class ids are uint8, and the last few values are spoken for."""

_BAND = 1 << 20

_PALETTE = (
    (0, 0, 0),
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
    (128, 64, 128),
    (107, 142, 35),
    (70, 130, 180),
    (220, 20, 60),
    (153, 153, 153),
    (119, 11, 32),
    (0, 60, 100),
    (190, 153, 153),
)
"""Colours for classes that bring none: Okabe and Ito's colour-blind safe set first, then street-scene customs."""


def default_color(index: int) -> tuple[int, int, int]:
    """A colour (RGB, 0..255) for the class at this place of the table; the same one every time."""
    return _PALETTE[index] if index < len(_PALETTE) else tuple((index * k) % 200 + 40 for k in (97, 57, 131))  # type: ignore[return-value]


class ClassSpec(BaseModel):
    """One class: its name, the pixel value that stands for it in mask files, and the colour that it is drawn in."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(min_length=1)
    value: int = Field(ge=0, le=65535)
    color: tuple[int, int, int]


class ClassTable(BaseModel):
    """The classes of a dataset; a class id is a place in `classes`. `ignore` lists file values that count nowhere.

    overlapping: a pixel may have several classes. The value of a class is then a bit, a pixel's value the sum of its classes', and
    the first class, of value 0, is where no other is.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    classes: tuple[ClassSpec, ...] = Field(min_length=2, max_length=MAX_CLASSES)
    ignore: tuple[int, ...] = ()
    overlapping: bool = Field(False, exclude_if=operator.not_)  # so that hashes of other tables stay as they were

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
        ground, *bits = (c.value for c in self.classes)
        if ground != 0 or any(value.bit_count() != 1 for value in bits):
            raise ValueError(
                f"overlapping classes are a background of value 0, then bits (1, 2, 4 ...), found {[ground, *bits]}"
            )
        if len(self.classes) > MAX_OVERLAPPING_CLASSES:
            raise ValueError(
                f"at most {MAX_OVERLAPPING_CLASSES - 1} classes can overlap (beside the background), found {len(bits)}"
            )
        if sets := [value for value in self.ignore if not value & ~sum(bits)]:
            raise ValueError(f"ignored values {sets} are sets of the classes; 65535 never is one")

    @classmethod
    def from_names(cls, names: list[str], values: list[int] | None = None, ignore: tuple[int, ...] = ()) -> ClassTable:
        """A table with default colours; class k has pixel value k unless `values` says otherwise."""
        chosen = values if values is not None else list(range(len(names)))
        specs = tuple(
            ClassSpec(name=n, value=v, color=default_color(i))
            for i, (n, v) in enumerate(zip(names, chosen, strict=True))
        )
        return cls(classes=specs, ignore=ignore)

    @property
    def names(self) -> list[str]:
        """Class names, by class id."""
        return [c.name for c in self.classes]

    @property
    def colors(self) -> npt.NDArray[np.uint8]:
        """Colours, shape (n_classes, 3), RGB 0..255, by class id."""
        return np.array([c.color for c in self.classes], np.uint8)

    @cached_property
    def labelling(self) -> Labelling:
        """What the numbers of label arrays mean."""
        return labelling_of(len(self.classes), self.overlapping)

    @property
    def palette(self) -> npt.NDArray[np.uint8]:
        """Colours, shape (labels, 3), RGB 0..255, by label: of class ids those of the classes, of a set their mean."""
        return self.labelling.palette(self.colors)

    def __len__(self) -> int:
        return len(self.classes)

    def encode(self, mask: np.ndarray) -> npt.NDArray[np.uint8]:
        """File values, any shape and unsigned integer dtype -> labels, uint8; `IGNORE` and `UNKNOWN` where they apply."""
        table = np.full(65536, UNKNOWN, np.uint8)
        for label, value in self._stored().items():
            table[value] = label
        table[list(self.ignore)] = IGNORE
        values, ids = np.ascontiguousarray(mask).reshape(-1), np.empty(mask.size, np.uint8)
        for start in range(0, mask.size, _BAND):  # numpy looks up through a 64-bit copy of what it is given
            ids[start : start + _BAND] = table[values[start : start + _BAND]]
        return ids.reshape(mask.shape)

    def decode(self, labels: np.ndarray) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        """Labels, any shape -> the values that mask files store; ignored pixels get the first ignored value (or 255)."""
        stored = self._stored()
        top = max([*stored.values(), *self.ignore, 255])
        table = np.zeros(256, np.uint8 if top <= 255 else np.uint16)
        table[IGNORE] = self.ignore[0] if self.ignore else 255
        for label, value in stored.items():
            table[label] = value
        return table[labels]  # type: ignore[no-any-return]

    def _stored(self) -> dict[int, int]:
        """The file value of each label: of a class, and of a set of classes the sum of theirs."""
        values = np.array([c.value for c in self.classes])
        sums = self.labelling.members @ values
        return {label: int(sums[label]) for label in np.flatnonzero(self.labelling.members.any(1)).tolist()}


def instance_classes(
    labels: np.ndarray, ids: np.ndarray
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(ids that there are, the label that most pixels of each have, their pixels), each (n,). labels, ids: shaped alike."""
    numbers, place = np.unique(ids, return_inverse=True)
    votes = np.bincount(place.reshape(-1) * 256 + labels.reshape(-1), minlength=len(numbers) * 256).reshape(-1, 256)
    return numbers.astype(np.int64), votes.argmax(1), votes.sum(1)


@dataclass(frozen=True)
class Instances:
    """The objects of one image; no two share a pixel, so that memory is bounded by the image.

    ids: (H, W) or (D, H, W), uint16: 0 for none, k where object k is, 1 .. n; each has at least one pixel.
    classes: (n,), int64, class ids, of object 1 first. scores: (n,), float64, 0..1, how sure the model is of each.
    boxes: (n, 2 or 3, 2), int64: by axis of `ids`, the first and one past the last pixel.
    """

    ids: npt.NDArray[np.uint16]
    classes: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    boxes: npt.NDArray[np.int64]

    MOST: ClassVar[int] = 65535
    """So many objects an image can hold."""

    def __len__(self) -> int:
        return len(self.classes)

    @classmethod
    def from_map(cls, ids: np.ndarray, classes: npt.ArrayLike, scores: npt.ArrayLike) -> Instances:
        """From a map with ids 1 .. n, any integer dtype, and the class and score of each, in order.

        Ids without a pixel are closed up. Raises ValueError where an id has no class or no score, or above `MOST` objects.
        """
        from scipy import ndimage

        kinds, sure = np.asarray(classes, np.int64), np.asarray(scores, np.float64)
        if len(kinds) != len(sure) or (ids.size and int(ids.max()) > len(kinds)):
            raise ValueError(f"ids up to {ids.max(initial=0)}, {len(kinds)} classes and {len(sure)} scores")
        found = ndimage.find_objects(ids, max_label=len(kinds))
        there = np.array([place is not None for place in found], bool)
        if there.sum() > cls.MOST:
            raise ValueError(f"{there.sum()} objects, at most {cls.MOST} fit")
        table = np.zeros(len(kinds) + 1, np.uint16)
        table[1:][there] = np.arange(1, there.sum() + 1)
        boxes = [[(part.start, part.stop) for part in place] for place in found if place is not None]
        return cls(table[ids], kinds[there], sure[there], np.array(boxes, np.int64).reshape(len(boxes), ids.ndim, 2))

    def areas(self) -> npt.NDArray[np.int64]:
        """Pixels of each object, (n,)."""
        return np.bincount(self.ids.reshape(-1), minlength=len(self) + 1)[1:]

    def class_map(self) -> npt.NDArray[np.uint8]:
        """Class ids, shaped as `ids`: of the object that a pixel belongs to, 0 where there is none."""
        return np.append(0, self.classes).astype(np.uint8)[self.ids]


@dataclass(frozen=True)
class Sample:
    """One labelled image or volume.

    image: (H, W, C), of a volume (D, H, W, C), uint8, uint16 or float32, as stored (no normalisation).
    labels: (H, W) or (D, H, W), uint8 class ids (or sets), `IGNORE` where nothing counts; None for an image without a label.
    instances: shaped as labels, uint16 object ids, 0 for none; None where the dataset has no objects.
    spacing: size of a voxel in mm, by axis of the labels; None where the file says nothing of it.
    group: images of one group (patient, slide, video) never stand in two splits; None where there is no such thing.
    """

    key: str
    image: np.ndarray
    labels: npt.NDArray[np.uint8] | None = None
    instances: npt.NDArray[np.uint16] | None = None
    group: str | None = None
    spacing: tuple[float, ...] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def objects(self) -> Instances:
        """The true objects, each of the class that most of its pixels have; `labels` and `instances` must be there.

        Left out are those that lie mostly on ignored pixels, and those of class 0, which is no object's.
        """
        assert self.labels is not None and self.instances is not None, "a labelled sample of a dataset with objects"
        numbers, kinds, _ = instance_classes(self.labels, self.instances)
        kept = (numbers > 0) & (kinds > 0) & (kinds != IGNORE)
        table = np.zeros(1 << 16, np.int32)
        table[numbers[kept]] = np.arange(1, kept.sum() + 1)
        return Instances.from_map(table[self.instances], kinds[kept], np.ones(int(kept.sum())))


@dataclass(frozen=True)
class Prediction:
    """What a `Segmenter` says of one image.

    class_ids: (H, W), uint8; where classes overlap, sets of them.
    probabilities: (n_classes, H, W), float32, summing to 1 over classes unless these overlap; None unless asked for.
    instances: the objects; None unless asked for, and where the model yields none.
    distance: (H, W), float32, 0..1, how deep in an object a pixel lies; None unless probabilities were asked for, and of a model
    that did not learn it (`segpipe.training.sampling.distance`).
    """

    class_ids: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float32] | None = None
    instances: Instances | None = None
    distance: npt.NDArray[np.float32] | None = None

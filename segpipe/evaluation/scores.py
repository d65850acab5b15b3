"""What a model did on each image: the confusion counts that every score, interval and gate is computed from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.errors import DataError
from segpipe.evaluation.instance_metrics import SplitInstances, instance_statistic, is_instance
from segpipe.evaluation.slice_attributes import SliceAttributes
from segpipe.evaluation.statistics import Exchangeable, each_alone, resampling_units, statistic
from segpipe.labels import Labelling, labelling_of
from segpipe.metrics import Counts, Values, metric, metric_names, tallies
from segpipe.metrics.detections import Detections
from segpipe.metrics.instances import InstanceCounts


@dataclass(frozen=True)
class ImageScore:
    """One image's confusion matrix of labels, (n_labels, n_labels), with its key, group and size. A label is a class or, where
    classes overlap, a set of them.

    boundary: (3, n_classes), the pixels along contours (`segpipe.metrics.surface.boundary_tallies`); None where not counted.
    traits: what the image is cut into slices by (`segpipe.evaluation.slice_attributes`). reliability: (3, bins), pixels, summed confidence
    and hits by confidence (`segpipe.evaluation.calibration`); None where not counted. surface: (3, n_classes),
    `segpipe.metrics.surface.SURFACE_SCORES`; None where not measured. millimetres: whether their lengths are in mm.
    """

    key: str
    group: str | None
    height: int
    width: int
    confusion: Counts
    boundary: Counts | None = None
    traits: SliceAttributes = field(default_factory=dict)
    reliability: Values | None = None
    surface: Values | None = None
    millimetres: bool = False
    objects: InstanceCounts | None = None
    """Matches of objects; None where none are told apart."""
    detections: Detections | None = None
    """Predicted objects by confidence, with what they match; None where none are told apart."""


@dataclass(frozen=True)
class Scores:
    """A model's counts on a split.

    tally: (images, 3, n_classes), see `segpipe.metrics`. confusion: (n_labels, n_labels), summed over images.
    lineage: hashes that the model's segmenter.json carries. boundary: (images, 3, n_classes), as `tally`, of the pixels along
    contours; None where an image's were not counted. traits: one an image. reliability: (images, 3, bins), NaN for an image
    whose confidences were not counted; None where no image's were. surface: (images, 3, n_classes), as reliability of an
    image where surfaces were not measured. millimetres: (images,), bool, the unit of their lengths.
    """

    candidate: str
    classes: list[str]
    keys: list[str]
    groups: list[str | None]
    tally: Counts
    confusion: Counts
    lineage: dict[str, str] = field(default_factory=dict)
    boundary: Counts | None = None
    traits: list[SliceAttributes] = field(default_factory=list)
    reliability: Values | None = None
    surface: Values | None = None
    millimetres: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    objects: Counts | None = None
    """(images, 10, 3, n_classes): matched, true and predicted objects at each of `segpipe.metrics.instances.THRESHOLDS`; None where
    an image's were not counted."""
    object_iou: Values | None = None
    """(images, n_classes): summed IoU of the pairs that match at 0.5."""
    detections: list[Detections] | None = None
    """One an image; None where an image's were not kept."""
    overlapping: bool = False
    """Whether a pixel may have several classes."""

    @property
    def labelling(self) -> Labelling:
        """What rows and columns of `confusion` mean."""
        return labelling_of(len(self.classes), self.overlapping)

    @classmethod
    def collect(
        cls,
        candidate: str,
        classes: list[str],
        lineage: dict[str, str],
        images: Iterable[ImageScore],
        overlapping: bool = False,
    ) -> Scores:
        """Reduce a stream of images; their confusion matrices are not kept."""
        keys, groups, tally, boundary, traits, sure, surface, units = [], [], [], [], [], [], [], []
        objects: list[InstanceCounts] = []
        detections: list[Detections] = []
        labelling = labelling_of(len(classes), overlapping)
        total = np.zeros((labelling.n_labels, labelling.n_labels), np.int64)
        for image in images:
            keys.append(image.key)
            groups.append(image.group)
            tally.append(tallies(image.confusion, labelling))
            boundary += [] if image.boundary is None else [image.boundary]
            traits.append(image.traits)
            sure.append(image.reliability)
            surface.append(image.surface)
            units.append(image.millimetres)
            objects += [] if image.objects is None else [image.objects]
            detections += [] if image.detections is None else [image.detections]
            total += image.confusion
        stacked, bands = (np.array(rows, np.int64).reshape(-1, 3, len(classes)) for rows in (tally, boundary))
        return cls(
            candidate,
            classes,
            keys,
            groups,
            stacked,
            total,
            lineage,
            bands if len(bands) == len(keys) else None,
            traits,
            _stacked(sure),
            _stacked(surface),
            np.array(units, bool),
            np.array([o.tallies for o in objects]) if objects and len(objects) == len(keys) else None,
            np.array([o.iou_sum for o in objects]) if objects and len(objects) == len(keys) else None,
            detections if detections and len(detections) == len(keys) else None,
            overlapping,
        )

    def statistic(self, name: str, by_image: bool = False) -> Exchangeable:
        """The score of this name, of pixels or of objects, as a function of how often each unit was drawn. by_image: whether units
        are single images, also where groups are known. Raises ConfigError where there is no such score."""
        units = np.arange(len(self.keys)) if by_image else resampling_units(self.groups)
        if is_instance(name):
            known = self.objects is not None and self.object_iou is not None
            objects = SplitInstances(self.objects, self.object_iou, self.detections) if known else None  # type: ignore[arg-type]
            return instance_statistic(name, self.candidate, self.classes, objects, units)
        return statistic(metric(name, self.classes, self.overlapping), self.tally, units)

    def knows(self, name: str) -> bool:
        """Whether there is a score of this name for such classes: a score of all pixels is none where they overlap."""
        return is_instance(name) or name in metric_names(self.classes, self.overlapping)

    def value(self, name: str) -> float | None:
        """The score of this name, or None where it does not exist."""
        of = self.statistic(name, by_image=True)
        value = float(of(np.ones((1, of.size)))[0])
        return None if np.isnan(value) else value

    def boundary_iou(self) -> dict[str, float]:
        """Boundary IoU by name, `boundary_iou.LEVEL.macro` and `boundary_iou.class.NAME`, as IoU is named; without those
        that do not exist, and empty where the pixels along contours were not counted."""
        if self.boundary is None:
            return {}
        names = ["dataset.macro", "image.macro", *(f"class.{name}" for name in self.classes)]
        values = {f"boundary_iou.{n}": metric(f"iou.{n}", self.classes).value(self.boundary) for n in names}
        return {name: value for name, value in values.items() if not np.isnan(value)}

    def of_images(self, name: str) -> Values:
        """The score of this name on each image alone, (images,), NaN where it does not exist."""
        if not is_instance(name):
            return metric(name, self.classes, self.overlapping).of(self.tally)
        of = self.statistic(name, by_image=True)
        return each_alone(of, of.size)

    def aligned(self, other: Scores) -> Scores:
        """`other` with its images in the order of these; a DataError where they are not the same images."""
        if set(self.keys) != set(other.keys):
            unlike = sorted(set(self.keys) ^ set(other.keys))
            raise DataError(
                f"{self.candidate} and {other.candidate} were scored on different images",
                found=f"{len(unlike)} that only one of them has, such as {unlike[0]}",
                fix="score both on the same split: dvc repro evaluate",
            )
        place = {key: i for i, key in enumerate(other.keys)}
        return other.at(np.array([place[key] for key in self.keys], np.intp))

    def at(self, places: npt.NDArray[np.intp]) -> Scores:
        """The images at these places, in this order. `confusion` stays that of all."""

        def taken(rows: npt.NDArray[Any] | None) -> Any:
            return None if rows is None else rows[places]

        return replace(
            self,
            keys=[self.keys[i] for i in places],
            groups=[self.groups[i] for i in places],
            tally=self.tally[places],
            boundary=taken(self.boundary),
            traits=[self.traits[i] for i in places] if self.traits else [],
            reliability=taken(self.reliability),
            surface=taken(self.surface),
            millimetres=self.millimetres[places] if len(self.millimetres) else self.millimetres,
            objects=taken(self.objects),
            object_iou=taken(self.object_iou),
            detections=[self.detections[i] for i in places] if self.detections is not None else None,
        )


def _stacked(rows: list[Values | None]) -> Values | None:
    """(images, ...), NaN where a row is None; None where all are."""
    known = next((row for row in rows if row is not None), None)
    return None if known is None else np.array([np.full_like(known, np.nan) if row is None else row for row in rows])

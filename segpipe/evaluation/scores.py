"""The counts of a model on each image of a split: every score, interval and gate is computed from them."""

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
    """The counts of a model on one image.

    Attributes:
        key: the image.
        group: patient, slide or video; None if unknown.
        height: of the image in pixels.
        width: of the image in pixels.
        confusion: (n_labels, n_labels), the confusion matrix. A label is a class or, if classes overlap, a set of them.
        boundary: (3, n_classes), pixels along contours (`segpipe.metrics.surface.boundary_tallies`); None if not counted.
        attributes: by which the image is grouped into slices (`segpipe.evaluation.slice_attributes`).
        reliability: (3, bins), pixels, summed confidence and hits by confidence (`segpipe.evaluation.calibration`); None if not
            counted.
        surface: (3, n_classes), `segpipe.metrics.surface.SURFACE_SCORES`; None if not measured.
        millimetres: whether the lengths in `surface` are in mm.
        instances: the counts of instances; None if the image or the model has no instances.
        detections: the predicted instances with their matches; None as `instances`.
    """

    key: str
    group: str | None
    height: int
    width: int
    confusion: Counts
    boundary: Counts | None = None
    attributes: SliceAttributes = field(default_factory=dict)
    reliability: Values | None = None
    surface: Values | None = None
    millimetres: bool = False
    instances: InstanceCounts | None = None
    detections: Detections | None = None


@dataclass(frozen=True)
class Scores:
    """The counts of a model on the images of a split.

    Attributes:
        candidate: the name of the model, or the version of a champion.
        classes: the names of the classes.
        keys: of the images.
        groups: the group of each image; None if unknown.
        tally: (images, 3, n_classes), as `segpipe.metrics.tallies` counts them.
        confusion: (n_labels, n_labels), summed over images.
        lineage: the hashes in the model's segmenter.json.
        boundary: (images, 3, n_classes), as `tally`, of the pixels along contours; None if an image was not counted.
        attributes: of each image, for slices.
        reliability: (images, 3, bins), NaN for an image that was not counted; None if no image was.
        surface: (images, 3, n_classes), NaN for an image that was not measured; None if no image was.
        millimetres: (images,), bool, whether the lengths in `surface` are in mm.
        instances: (images, 10, 3, n_classes), matched, true and predicted instances at each of
            `segpipe.metrics.instances.THRESHOLDS`; None if an image was not counted.
        instance_iou: (images, n_classes), the summed IoU of the pairs that match at 0.5; None as `instances`.
        detections: of each image; None if those of an image were not stored.
        overlapping: whether a pixel may have several classes.
    """

    candidate: str
    classes: list[str]
    keys: list[str]
    groups: list[str | None]
    tally: Counts
    confusion: Counts
    lineage: dict[str, str] = field(default_factory=dict)
    boundary: Counts | None = None
    attributes: list[SliceAttributes] = field(default_factory=list)
    reliability: Values | None = None
    surface: Values | None = None
    millimetres: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    instances: Counts | None = None
    instance_iou: Values | None = None
    detections: list[Detections] | None = None
    overlapping: bool = False

    @property
    def labelling(self) -> Labelling:
        """The meaning of the rows and columns of `confusion`."""
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
        """Collect a stream of images; their confusion matrices are not kept.

        Args:
            candidate: the name of the model.
            classes: the names of the classes.
            lineage: the hashes in the model's segmenter.json.
            images: the counts of each image.
            overlapping: whether a pixel may have several classes.
        """
        keys, groups, tally, boundary, attributes, reliability, surface, millimetres = [], [], [], [], [], [], [], []
        instances: list[InstanceCounts] = []
        detections: list[Detections] = []
        labelling = labelling_of(len(classes), overlapping)
        total = np.zeros((labelling.n_labels, labelling.n_labels), np.int64)
        for image in images:
            keys.append(image.key)
            groups.append(image.group)
            tally.append(tallies(image.confusion, labelling))
            boundary += [] if image.boundary is None else [image.boundary]
            attributes.append(image.attributes)
            reliability.append(image.reliability)
            surface.append(image.surface)
            millimetres.append(image.millimetres)
            instances += [] if image.instances is None else [image.instances]
            detections += [] if image.detections is None else [image.detections]
            total += image.confusion
        stacked, bands = (np.array(rows, np.int64).reshape(-1, 3, len(classes)) for rows in (tally, boundary))
        complete = bool(instances) and len(instances) == len(keys)
        return cls(
            candidate,
            classes,
            keys,
            groups,
            stacked,
            total,
            lineage,
            bands if len(bands) == len(keys) else None,
            attributes,
            _stacked(reliability),
            _stacked(surface),
            np.array(millimetres, bool),
            np.array([counts.tallies for counts in instances]) if complete else None,
            np.array([counts.iou_sum for counts in instances]) if complete else None,
            detections if detections and len(detections) == len(keys) else None,
            overlapping,
        )

    def statistic(self, name: str, by_image: bool = False) -> Exchangeable:
        """Return a metric as a function of how often each unit was drawn.

        Args:
            name: a pixel metric (`iou.dataset.macro`) or an instance metric (`instance.f1_50`).
            by_image: whether units are single images even if groups are known.

        Raises:
            ConfigError: there is no metric of this name, or the model has no instance scores.
        """
        units = np.arange(len(self.keys)) if by_image else resampling_units(self.groups)
        if not is_instance(name):
            return statistic(metric(name, self.classes, self.overlapping), self.tally, units)
        instances = None
        if self.instances is not None and self.instance_iou is not None:
            instances = SplitInstances(self.instances, self.instance_iou, self.detections)
        return instance_statistic(name, self.candidate, self.classes, instances, units)

    def knows(self, name: str) -> bool:
        """Return whether a metric of this name exists for such classes: metrics of all pixels do not if classes overlap."""
        return is_instance(name) or name in metric_names(self.classes, self.overlapping)

    def value(self, name: str) -> float | None:
        """Compute the score of this name; None if it does not exist."""
        statistic = self.statistic(name, by_image=True)
        value = float(statistic(np.ones((1, statistic.size)))[0])
        return None if np.isnan(value) else value

    def boundary_iou(self) -> dict[str, float]:
        """Compute boundary IoU by name, `boundary_iou.LEVEL.macro` and `boundary_iou.class.NAME`.

        Scores that do not exist are left out; there are none if the pixels along contours were not counted.
        """
        if self.boundary is None:
            return {}
        names = ["dataset.macro", "image.macro", *(f"class.{name}" for name in self.classes)]
        values = {f"boundary_iou.{n}": metric(f"iou.{n}", self.classes).value(self.boundary) for n in names}
        return {name: value for name, value in values.items() if not np.isnan(value)}

    def image_scores(self, name: str) -> Values:
        """Compute the score of this name on each image alone, (images,); NaN if it does not exist."""
        if not is_instance(name):
            return metric(name, self.classes, self.overlapping).compute(self.tally)
        statistic = self.statistic(name, by_image=True)
        return each_alone(statistic, statistic.size)

    def aligned(self, other: Scores) -> Scores:
        """Return `other` with its images in the order of these.

        Raises:
            DataError: the two have different images.
        """
        if set(self.keys) != set(other.keys):
            unshared = sorted(set(self.keys) ^ set(other.keys))
            raise DataError(
                f"{self.candidate} and {other.candidate} were scored on different images",
                found=f"{len(unshared)} images that only one of them has, such as {unshared[0]}",
                fix="score both on the same split: dvc repro evaluate",
            )
        index = {key: i for i, key in enumerate(other.keys)}
        return other.at(np.array([index[key] for key in self.keys], np.intp))

    def at(self, indices: npt.NDArray[np.intp]) -> Scores:
        """Return the counts of the images at these indices, in this order. `confusion` stays that of all images."""

        def rows_of(rows: npt.NDArray[Any] | None) -> Any:
            return None if rows is None else rows[indices]

        return replace(
            self,
            keys=[self.keys[i] for i in indices],
            groups=[self.groups[i] for i in indices],
            tally=self.tally[indices],
            boundary=rows_of(self.boundary),
            attributes=[self.attributes[i] for i in indices] if self.attributes else [],
            reliability=rows_of(self.reliability),
            surface=rows_of(self.surface),
            millimetres=self.millimetres[indices] if len(self.millimetres) else self.millimetres,
            instances=rows_of(self.instances),
            instance_iou=rows_of(self.instance_iou),
            detections=[self.detections[i] for i in indices] if self.detections is not None else None,
        )


def _stacked(rows: list[Values | None]) -> Values | None:
    """Stack the rows to (images, ...), with NaN for a row that is None; None if all rows are."""
    known = next((row for row in rows if row is not None), None)
    return None if known is None else np.array([np.full_like(known, np.nan) if row is None else row for row in rows])

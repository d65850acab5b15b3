"""Every image of a split through a model: its counts, distances and confidences.

The model has the processors while it predicts; what is counted of an image is counted in threads while the next one is
predicted. A few small images are in memory at once, or one large one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segpipe.concurrency import map_ahead
from segpipe.errors import DataError
from segpipe.evaluation.calibration import (
    CalibrationCounter,
    ImageCalibration,
    image_reliability,
    probabilities_fit_in_memory,
)
from segpipe.evaluation.gallery.pictures import has_background
from segpipe.evaluation.instance_counts import ComparedInstances, InstanceCounter
from segpipe.evaluation.scores import ImageScore
from segpipe.evaluation.slice_attributes import SliceAttributes, image_attributes
from segpipe.evaluation.surfaces import SurfaceRule
from segpipe.metrics import confusion
from segpipe.metrics.surface import boundary_tallies
from segpipe.progress import track
from segpipe.samples import ClassTable, Prediction, Sample

if TYPE_CHECKING:
    from segpipe.data.shards import ShardReader
    from segpipe.inference.segmenter import Segmenter

_AHEAD_VALUES = 1 << 24
"""An image of more probabilities (classes x pixels) is counted before the next one is predicted."""


def score_images(
    segmenter: Segmenter,
    reader: ShardReader,
    label: str,
    columns: Mapping[str, SliceAttributes] | None = None,
    surfaces: SurfaceRule | None = None,
    confidences: CalibrationCounter | None = None,
    objects: InstanceCounter | None = None,
) -> Iterator[ImageScore]:
    """The counts and traits of each image of a split, in order, showing progress under `label`.

    columns: further traits, by key. surfaces: of which images distances are measured; None measures none. confidences: takes
    what is known of the confidences of the whole split. objects: takes its objects, where dataset and model tell
    any apart. Raises DataError at an image without a label.
    """
    classes = segmenter.spec.classes
    counting = _Counting(classes, segmenter.spec.temperature, columns or {}, surfaces, confidences, objects)
    workers = min(8, os.cpu_count() or 1)
    small = True

    def predicted() -> Iterator[tuple[Sample, Prediction]]:
        nonlocal small
        for sample in track((reader[i] for i in range(len(reader))), label, len(reader)):
            if sample.labels is None:
                raise DataError(
                    "an image without a label can't be scored",
                    where=sample.key,
                    fix="label it, or take it out of the split",
                )
            afforded = not classes.overlapping and probabilities_fit_in_memory(sample, len(classes))
            apart = afforded and objects is not None and sample.instances is not None
            small = len(classes) * sample.labels.size <= _AHEAD_VALUES
            yield sample, segmenter.segment(sample, probabilities=afforded, instances=apart)

    def limit() -> int:
        return workers + 1 if small else 1

    for _, future in map_ahead(lambda pair: counting.count(*pair), predicted(), workers, limit):
        yield counting.told(future.result())


_Counted = tuple[ImageScore, ImageCalibration | None, ComparedInstances | None]


@dataclass(frozen=True)
class _Counting:
    """What is counted of each image; as `score_images` is asked."""

    classes: ClassTable
    temperature: float
    columns: Mapping[str, SliceAttributes]
    surfaces: SurfaceRule | None
    confidences: CalibrationCounter | None
    objects: InstanceCounter | None

    def count(self, sample: Sample, found: Prediction) -> _Counted:
        """An image's own numbers. Runs in several threads."""
        assert sample.labels is not None
        *_, height, width = sample.labels.shape
        labelling, said = self.classes.labelling, found.probabilities
        matched = self.objects.compare(sample, found) if self.objects else None
        traits = image_attributes(sample, has_background(self.classes), self.columns.get(sample.key), labelling)
        score = ImageScore(
            sample.key,
            sample.group,
            height,
            width,
            confusion(sample.labels, found.class_ids, labelling.n_labels),
            boundary_tallies(sample.labels, found.class_ids, labelling),
            traits,
            None if said is None else image_reliability(sample.labels, said),
            surface=self.surfaces.measure(sample, found.class_ids, labelling) if self.surfaces else None,
            millimetres=sample.spacing is not None,
            objects=matched.score if matched else None,
            detections=matched.detections if matched else None,
        )
        seen = (
            ImageCalibration.of(sample.labels, said, self.temperature)
            if self.confidences and said is not None
            else None
        )
        return score, seen, matched

    def told(self, counted: _Counted) -> ImageScore:
        """The image's score; what is known of the whole split has it from now on. In the order of the images."""
        score, seen, matched = counted
        if self.objects and matched:
            self.objects.add(matched)
        if self.confidences and seen:
            self.confidences.add(seen)
        return score

"""Scoring of every image of a split: counts, surface distances and confidences.

Images are predicted and counted in threads, several small ones at once, or one large one (`segpipe.inference.images_at_once`).
"""

from __future__ import annotations

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
from segpipe.evaluation.gallery.kept_masks import KeptMasks
from segpipe.evaluation.gallery.pictures import has_background
from segpipe.evaluation.instance_counts import ComparedInstances, InstanceCounter
from segpipe.evaluation.scores import ImageScore
from segpipe.evaluation.slice_attributes import SliceAttributes, image_attributes
from segpipe.evaluation.surfaces import SurfaceRule
from segpipe.inference.images_at_once import available_cores, fitting_images, parallel_jobs
from segpipe.metrics import confusion
from segpipe.metrics.surface import boundary_tallies
from segpipe.progress import track
from segpipe.samples import ClassTable, Prediction, Sample

if TYPE_CHECKING:
    from segpipe.data.shards import ShardReader
    from segpipe.inference.segmenter import Segmenter

_MAX_VALUES_AHEAD = 1 << 24
"""An image with more probabilities (classes x pixels) is counted before the next one is predicted."""
_MAX_WORKERS = 8


def score_images(
    segmenter: Segmenter,
    reader: ShardReader,
    label: str,
    attributes: Mapping[str, SliceAttributes] | None = None,
    surfaces: SurfaceRule | None = None,
    confidences: CalibrationCounter | None = None,
    instances: InstanceCounter | None = None,
    kept: KeptMasks | None = None,
) -> Iterator[ImageScore]:
    """Score each image of a split, in order.

    Args:
        segmenter: the model.
        reader: the split.
        label: the label of the progress bar.
        attributes: further attributes of images for slices, by key.
        surfaces: the images whose surface distances are measured; None measures none.
        confidences: collects the confidences of the whole split, if given.
        instances: collects the instances of the whole split, if given, and if dataset and model have instances.
        kept: keeps the predicted masks, if given.

    Yields:
        The counts and attributes of each image.

    Raises:
        DataError: an image has no label.
    """
    spec, classes = segmenter.spec, segmenter.spec.classes
    counting = _Counting(classes, spec.temperature, attributes or {}, surfaces, confidences, instances)
    jobs = parallel_jobs(segmenter)
    workers = jobs if jobs > 1 else min(_MAX_WORKERS, available_cores())
    ahead = 1

    def samples() -> Iterator[Sample]:
        nonlocal ahead
        for sample in track((reader[i] for i in range(len(reader))), label, len(reader)):
            if sample.labels is None:
                raise DataError(
                    "an image without a label cannot be scored",
                    where=sample.key,
                    fix="label it, or remove it from the split",
                )
            ahead = min(jobs, fitting_images(spec, sample)) if jobs > 1 else workers
            ahead = ahead + 1 if len(classes) * sample.labels.size <= _MAX_VALUES_AHEAD else 1
            yield sample

    def predict(sample: Sample) -> Prediction:
        with_probabilities = not classes.overlapping and probabilities_fit_in_memory(sample, len(classes))
        with_instances = with_probabilities and instances is not None and sample.instances is not None
        return segmenter.segment(sample, probabilities=with_probabilities, instances=with_instances)

    def count(pair: tuple[Sample, Prediction | None]) -> tuple[_Counted, Prediction]:
        sample, prediction = pair[0], pair[1] or predict(pair[0])
        return counting.count(sample, prediction), prediction

    # An engine that uses all cores predicts in this thread, while earlier images are counted.
    pairs = ((sample, predict(sample) if jobs == 1 else None) for sample in samples())
    for (sample, _), future in map_ahead(count, pairs, workers, lambda: ahead):
        counted, prediction = future.result()
        if kept is not None:
            kept.add(sample, prediction)
        yield counting.collect(counted)


_Counted = tuple[ImageScore, ImageCalibration | None, ComparedInstances | None]


@dataclass(frozen=True)
class _Counting:
    """The counting of images; the attributes are the parameters of `score_images`."""

    classes: ClassTable
    temperature: float
    attributes: Mapping[str, SliceAttributes]
    surfaces: SurfaceRule | None
    confidences: CalibrationCounter | None
    instances: InstanceCounter | None

    def count(self, sample: Sample, prediction: Prediction) -> _Counted:
        """Count one image. Runs in several threads."""
        assert sample.labels is not None
        *_, height, width = sample.labels.shape
        labelling, probabilities = self.classes.labelling, prediction.probabilities
        compared = self.instances.compare(sample, prediction) if self.instances else None
        background = has_background(self.classes)
        attributes = image_attributes(sample, background, self.attributes.get(sample.key), labelling)
        score = ImageScore(
            sample.key,
            sample.group,
            height,
            width,
            confusion(sample.labels, prediction.class_ids, labelling.n_labels),
            boundary_tallies(sample.labels, prediction.class_ids, labelling),
            attributes,
            None if probabilities is None else image_reliability(sample.labels, probabilities),
            surface=self.surfaces.measure(sample, prediction.class_ids, labelling) if self.surfaces else None,
            millimetres=sample.spacing is not None,
            instances=compared.counts if compared else None,
            detections=compared.detections if compared else None,
        )
        calibration = None
        if self.confidences and probabilities is not None:
            calibration = ImageCalibration.of(sample.labels, probabilities, self.temperature)
        return score, calibration, compared

    def collect(self, counted: _Counted) -> ImageScore:
        """Add an image to the counters of the whole split, in the order of the images; return its score."""
        score, calibration, compared = counted
        if self.instances and compared:
            self.instances.add(compared)
        if self.confidences and calibration:
            self.confidences.add(calibration)
        return score

"""Robustness: how much the main metric drops on corrupted images.

The same images are scored in their original form and corrupted, against the same labels. So the drop is a paired difference, and has an
interval.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from segpipe.concurrency import map_ahead
from segpipe.config import EvaluateParams
from segpipe.evaluation.metrics_file import DIGITS, CorruptionDrop, RobustnessScores
from segpipe.evaluation.robustness.corruptions import CORRUPTIONS, SEVERITIES, resample_to_labels
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.statistics import Interval, bootstrap, resampling_units, statistic
from segpipe.inference.images_at_once import fitting_images, parallel_jobs
from segpipe.inference.preprocess import fit_channels
from segpipe.metrics import MAIN_METRIC, Counts, Values, confusion, metric, tallies
from segpipe.progress import say, track
from segpipe.samples import Sample

if TYPE_CHECKING:
    from segpipe.data.shards import ShardReader
    from segpipe.inference.segmenter import Segmenter

SEED = 7
"""The images that `quick` uses, and the noise, are the same on every run."""

QUICK_IMAGES = 24
QUICK_SEVERITIES = ("medium",)


def measure_robustness(
    segmenter: Segmenter, reader: ShardReader, original: Scores, params: EvaluateParams, label: str
) -> RobustnessScores | None:
    """Measure the drop of the main metric for each corruption and severity.

    A corruption that does not apply to all images is left out, with a message.

    Args:
        segmenter: the model.
        reader: the test split.
        original: the model's counts on the original images of the split, in its order.
        params: `robustness` is off, quick or full; the number of resamples and the confidence of intervals.
        label: the label of the progress bar.

    Returns:
        The drops: the score on the original images minus the score on the corrupted ones. None if `robustness` is off, or if nothing
        counts in the images.
    """
    if params.robustness == "off":
        return None
    quick = params.robustness == "quick"
    indices = _subset(len(reader), QUICK_IMAGES if quick else len(reader))
    severities = QUICK_SEVERITIES if quick else SEVERITIES
    names = _applicable([reader[index] for index in indices], label)
    conditions = [(name, severity) for name in names for severity in severities]
    by_image = _corrupted_tallies(segmenter, reader, indices, conditions, label)
    counted = {condition: [tallies[k] for tallies in by_image] for k, condition in enumerate(conditions)}
    subset = original.at(np.array(indices, np.intp))
    main = metric(MAIN_METRIC, original.classes)
    drops: dict[str, dict[str, CorruptionDrop]] = {}
    units = 0
    for (name, severity), rows in counted.items():
        corrupted = np.array(rows, np.int64)
        drop = paired_drop(subset, corrupted, params)
        if np.isnan(drop.estimate):
            return None  # nothing counts in these images, corrupted or not
        units = drop.units
        values = {"score": main.value(corrupted), "drop": drop.estimate, "low": drop.low, "high": drop.high}
        rounded = {key: round(value, DIGITS) for key, value in values.items() if not np.isnan(value)}
        drops.setdefault(name, {})[severity] = CorruptionDrop.model_validate(rounded)
    score = round(main.value(subset.tally), DIGITS)
    return RobustnessScores(images=len(indices), units=units, by=drops, score=score)


def _subset(count: int, size: int) -> list[int]:
    """Draw the indices of at most `size` images, always the same ones, in rising order."""
    rng = np.random.Generator(np.random.PCG64(SEED))
    return sorted(rng.permutation(count)[:size].tolist())


def _applicable(samples: Sequence[Sample], label: str) -> list[str]:
    """Return the names of the corruptions that apply to all images; say which ones do not."""
    names = list(CORRUPTIONS)
    for sample in samples:
        for name in [name for name in names if not CORRUPTIONS[name].applies_to(sample)]:
            say(f"{label}: {name} is left out: it does not apply to {sample.image.dtype} images such as {sample.key}")
            names.remove(name)
    return names


def _corrupted_tallies(
    segmenter: Segmenter,
    reader: ShardReader,
    indices: Sequence[int],
    conditions: Sequence[tuple[str, str]],
    label: str,
) -> list[list[Counts]]:
    """Count the predictions of corrupted images, several images at once: for each image a tally for each (name, severity)."""
    jobs, ahead = parallel_jobs(segmenter), 1

    def selected() -> Iterator[int]:
        nonlocal ahead
        for index in track(indices, label, len(indices)):
            ahead = min(jobs, fitting_images(segmenter.spec, reader[index]))
            yield index

    def count(index: int) -> list[Counts]:
        sample, order = reader[index], list(CORRUPTIONS)
        return [
            _corrupted_tally(segmenter, sample, name, severity, (SEED, order.index(name), index))
            for name, severity in conditions
        ]

    return [future.result() for _, future in map_ahead(count, selected(), jobs, lambda: ahead)]


def _corrupted_tally(segmenter: Segmenter, sample: Sample, name: str, severity: str, seed: tuple[int, ...]) -> Counts:
    """Predict the corrupted image and count the prediction, resampled to the pixels of the labels: (3, n_classes)."""
    assert sample.labels is not None, "score_images raised an error"
    spec, corruption = segmenter.spec, CORRUPTIONS[name]
    image = fit_channels(sample.image, spec.normalisation.channels, spec.dims)
    corrupted = corruption.apply(image, spec.normalisation.for_image(image), severity, seed)
    spacing = sample.spacing and tuple(
        step * before / after
        for step, before, after in zip(sample.spacing, image.shape[:-1], corrupted.shape[:-1], strict=True)
    )
    class_ids = segmenter.predict(corrupted, spacing=spacing).class_ids
    if corruption.scales:
        class_ids = resample_to_labels(class_ids, sample.labels.shape)
    labelling = spec.classes.labelling
    return tallies(confusion(sample.labels, class_ids, labelling.n_labels), labelling)


def paired_drop(original: Scores, corrupted: Counts, params: EvaluateParams) -> Interval:
    """Compute the interval of the score on the original images minus the score on the corrupted ones.

    Args:
        original: the counts of the original images.
        corrupted: (images, 3, n_classes), the counts of the same images, corrupted.
        params: the number of resamples and the confidence.
    """
    main = metric(MAIN_METRIC, original.classes)
    units = resampling_units(original.groups)
    ours, theirs = (statistic(main, tally, units) for tally in (original.tally, corrupted))

    def drop(weights: Values) -> Values:
        return ours(weights) - theirs(weights)

    return bootstrap(drop, int(units.max(initial=-1)) + 1, params.resamples, params.confidence)

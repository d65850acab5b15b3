"""What a model loses where images are worse than those it was tested on: the drop of the main metric by corruption.

The same images are scored as they are and spoilt, and against the same labels: the drop is a paired difference, with an interval.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from segpipe.config import EvaluateParams
from segpipe.evaluation.robustness.corruptions import CORRUPTIONS, SEVERITIES, resample_to_labels
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.statistics import Interval, bootstrap, resampling_units, statistic
from segpipe.inference.preprocess import fit_channels
from segpipe.metrics import MAIN_METRIC, Counts, Values, confusion, metric, tallies
from segpipe.progress import say, track
from segpipe.samples import Sample

if TYPE_CHECKING:
    from segpipe.data.shards import ShardReader
    from segpipe.inference.segmenter import Segmenter

SEED = 7
"""The images that `quick` takes and the noise that is added are the same every time."""

QUICK_IMAGES = 24
QUICK_SEVERITIES = ("medium",)


def measure_robustness(
    segmenter: Segmenter, reader: ShardReader, found: Scores, params: EvaluateParams, label: str
) -> dict[str, Any]:
    """What metrics.json tells: {images, units, score, by: {CORRUPTION: {SEVERITY: {score, drop, low, high}}}} of the main metric, to
    six digits; drop = score on the images as they are - score on the spoilt ones, with its bounds. Empty where it is off.

    found: the model's scores on the split, in its order. A corruption that suits not all images is left out, and told.
    """
    if params.robustness == "off":
        return {}
    quick = params.robustness == "quick"
    places = _subset(len(reader), QUICK_IMAGES if quick else len(reader))
    severities = QUICK_SEVERITIES if quick else SEVERITIES
    counted: dict[tuple[str, str], list[Counts]] = {(name, s): [] for name in CORRUPTIONS for s in severities}
    for place in track(places, label, len(places)):
        sample = reader[place]
        for name in _unsuited(sample, {name for name, _ in counted}):
            say(f"{label}: {name} is left out, since it is not for {sample.image.dtype} images like {sample.key}")
            counted = {key: rows for key, rows in counted.items() if key[0] != name}
        for name, severity in counted:
            seed = (SEED, list(CORRUPTIONS).index(name), place)
            counted[name, severity].append(_spoilt_tally(segmenter, sample, name, severity, seed))
    own = found.at(np.array(places, np.intp))
    table: dict[str, Any] = {"images": len(places), "units": 0, "by": {}}
    chosen = metric(MAIN_METRIC, found.classes)
    for (name, severity), rows in counted.items():
        spoilt = np.array(rows, np.int64)
        drop = paired_drop(own, spoilt, params)
        if np.isnan(drop.estimate):
            return {}  # nothing counts in these images, however they look
        table |= {"units": drop.units, "score": round(chosen.value(own.tally), 6)}
        told = {"score": chosen.value(spoilt), "drop": drop.estimate, "low": drop.low, "high": drop.high}
        table["by"].setdefault(name, {})[severity] = {k: round(v, 6) for k, v in told.items() if not np.isnan(v)}
    return table


def _subset(count: int, most: int) -> list[int]:
    """Places of at most `most` images, drawn once and for all, in order."""
    rng = np.random.Generator(np.random.PCG64(SEED))
    return sorted(rng.permutation(count)[:most].tolist())


def _unsuited(sample: Sample, names: set[str]) -> list[str]:
    return [name for name in CORRUPTIONS if name in names and not CORRUPTIONS[name].suits(sample)]


def _spoilt_tally(segmenter: Segmenter, sample: Sample, name: str, severity: str, seed: tuple[int, ...]) -> Counts:
    """(3, n_classes) of the model's answer to the spoilt image, brought back to the pixels of the labels."""
    assert sample.labels is not None, "score_images has refused it"
    spec, how = segmenter.spec, CORRUPTIONS[name]
    image = fit_channels(sample.image, spec.normalisation.channels, spec.dims)
    spoilt = how.apply(image, spec.normalisation.of(image), severity, seed)
    spacing = sample.spacing and tuple(
        step * before / after
        for step, before, after in zip(sample.spacing, image.shape[:-1], spoilt.shape[:-1], strict=True)
    )
    said = segmenter.predict(spoilt, spacing=spacing).class_ids
    if how.scales:
        said = resample_to_labels(said, sample.labels.shape)
    labelling = spec.classes.labelling
    return tallies(confusion(sample.labels, said, labelling.n_labels), labelling)


def paired_drop(own: Scores, spoilt: Counts, params: EvaluateParams) -> Interval:
    """The interval of the score on these images less the score on them spoilt. spoilt: (images, 3, n_classes)."""
    chosen = metric(MAIN_METRIC, own.classes)
    units = resampling_units(own.groups)
    ours, theirs = (statistic(chosen, tally, units) for tally in (own.tally, spoilt))

    def drop(weights: Values) -> Values:
        return ours(weights) - theirs(weights)

    return bootstrap(drop, int(units.max(initial=-1)) + 1, params.resamples, params.confidence)

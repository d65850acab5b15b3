"""The choice of a cleaning, with segmenters that make known mistakes."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from segpipe.inference.cleaning import Cleaning, fill_from_nearest, region_sizes, remove_small_regions
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.metrics import confusion, macro, tallies
from segpipe.samples import IGNORE, ClassTable, Sample
from segpipe.training.finishing.cleaning_search import (
    SIZES,
    _changes,
    choose_cleaning,
    gain_lower_bound,
    iou,
    search_images,
)
from segpipe.training.finishing.decision_thresholds import decide
from tests.worlds.readers import MemoryReader
from tests.worlds.segmenters import UNIT

NAMES = list("abcdefgh")


class Known:
    """An engine that predicts the image itself: its channels are class probabilities."""

    name = "toy"

    def __call__(self, batch):
        return np.log(np.clip(batch, 1e-6, 1)).astype(np.float32)


def segmenter(classes, cleaning=None):
    channels = UNIT.model_copy(update={name: getattr(UNIT, name) * classes for name in ("low", "high", "mean", "std")})
    spec = SegmenterSpec(
        candidate="toy",
        family="unet",
        classes=ClassTable.from_names(NAMES[:classes]),
        normalisation=channels,
        cleaning=cleaning,
    )
    return Segmenter(spec, Known())


def scene(seed, threshold=0.5, specks=0, classes=3):
    """Large regions; predicted with probability `threshold` at their borders, and with specks of two pixels."""
    rng = np.random.default_rng(seed)
    fields = np.stack([gaussian_filter(rng.normal(size=(48, 48)), 6) for _ in range(classes)])
    truth = fields.argmax(0).astype(np.uint8)
    if classes == 2:
        margin = fields[1] - fields[0]
        p = 1 / (1 + np.exp(-40 * margin - np.log(threshold / (1 - threshold))))
        predicted = np.stack([1 - p, p])
    else:
        predicted = np.where(np.arange(classes)[:, None, None] == truth, 0.9, 0.05)
    for _ in range(specks):
        y, x = rng.integers(2, 45, 2)
        predicted[:, y, x : x + 2] = np.roll(predicted[:, y, x], 1)[:, None]
    truth[0] = IGNORE
    return Sample(str(seed), np.moveaxis(predicted, 0, -1).astype(np.float32), truth)


def score(model, samples):
    n = len(model.spec.classes)
    return macro("iou", tallies(sum(confusion(s.labels, model.predict(s.image).class_ids, n) for s in samples)))


@pytest.mark.parametrize("right", [0.3, 0.7])
def test_a_better_threshold_is_found(right):
    val = [scene(i, right, classes=2) for i in range(16)]
    chosen = choose_cleaning(segmenter(2), MemoryReader(val), [1.0] * 2, 0)
    assert chosen.cleaning.threshold == pytest.approx(right, abs=0.051) and len(chosen.after) == 16
    gain = score(segmenter(2, chosen.cleaning), val) - score(segmenter(2), val)
    assert gain == pytest.approx(chosen.gain, abs=1e-4) and gain > 0, (
        "a segmenter with the cleaning has the reported gain"
    )


WEIGHTS = [0.5, 1.0, 8.0]


def overstated(seed, weights=WEIGHTS):
    """A truth drawn pixel by pixel from known probabilities, which are predicted multiplied by the weights."""
    rng = np.random.default_rng(seed)
    fields = (
        np.stack([gaussian_filter(rng.normal(size=(48, 48)), 6) * 30 for _ in weights])
        - np.array([0, 1, 3])[:, None, None]
    )
    p = np.exp(fields - fields.max(0))
    p /= p.sum(0)
    truth = (rng.random((48, 48)) > p.cumsum(0)).sum(0).clip(0, 2).astype(np.uint8)
    predicted = p * np.array(weights)[:, None, None]
    return Sample(str(seed), np.moveaxis(predicted / predicted.sum(0), 0, -1).astype(np.float32), truth)


def test_rare_classes_that_are_predicted_too_often_are_predicted_less():
    val, fresh = [overstated(i) for i in range(16)], [overstated(100 + i) for i in range(8)]
    chosen = choose_cleaning(segmenter(3), MemoryReader(val), WEIGHTS, 0)
    shifts = np.array(chosen.cleaning.shifts)
    share = -shifts / (np.log(WEIGHTS) - np.log(WEIGHTS).mean())
    assert share.std() < 1e-3 and share.mean() == pytest.approx(1, abs=0.26), "nearly all of the weights is taken back"
    assert score(segmenter(3, chosen.cleaning), fresh) > score(segmenter(3), fresh) + 0.02
    gain = score(segmenter(3, chosen.cleaning), val) - score(segmenter(3), val)
    assert gain == pytest.approx(chosen.gain, abs=1e-4)
    assert chosen.cleaning.in_words(segmenter(3).spec.classes).endswith("for a)")
    assert choose_cleaning(segmenter(3), MemoryReader(val), [1.0] * 3, 0).cleaning is None, (
        "with equal weights there is nothing to take back"
    )


def test_calibrated_probabilities_are_not_shifted():
    val = [overstated(i, [1.0] * 3) for i in range(16)]
    choice = choose_cleaning(segmenter(3), MemoryReader(val), WEIGHTS, 0)
    assert choice.cleaning is None or not choice.cleaning.shifts


@pytest.mark.parametrize("cleaning", [Cleaning(threshold=0.3), Cleaning(shifts=(0.0, 0.9))])
def test_a_segmenter_shifts_logits_as_decide_does(cleaning):
    """Also in tiles; `decide` is what the cleaning was chosen by."""
    sample, model = scene(3, classes=2), segmenter(2, cleaning)
    probabilities = np.moveaxis(sample.image, -1, 0)
    expected = decide(probabilities, cleaning)
    np.testing.assert_array_equal(model.predict(sample.image).class_ids, expected)
    np.testing.assert_array_equal(model.with_changes(tile=32, overlap=8).predict(sample.image).class_ids, expected)
    odds = np.log(probabilities[1] / probabilities[0].clip(1e-6)) + cleaning.logit_offsets[1]
    np.testing.assert_array_equal(expected, odds > 0)


@pytest.mark.parametrize("classes", [2, 3])
def test_specks_are_removed_and_nothing_else(classes):
    val = [scene(i, specks=8, classes=classes) for i in range(16)]
    chosen = choose_cleaning(segmenter(classes), MemoryReader(val), [1.0] * classes, 0)
    assert chosen.cleaning.threshold is None and all(4 <= size <= 64 for size in chosen.cleaning.least)
    fresh = [scene(100 + i, specks=8, classes=classes) for i in range(8)]
    assert score(segmenter(classes, chosen.cleaning), fresh) > score(segmenter(classes), fresh) + 0.005
    gain = score(segmenter(classes, chosen.cleaning), val) - score(segmenter(classes), val)
    assert gain == pytest.approx(chosen.gain, abs=1e-9)


def test_a_gain_by_chance_is_not_used():
    assert choose_cleaning(segmenter(3), MemoryReader([scene(i) for i in range(16)]), [1.0] * 3, 0).cleaning is None
    assert (
        choose_cleaning(segmenter(2), MemoryReader([scene(i, classes=2) for i in range(16)]), [1.0] * 2, 0).cleaning
        is None
    )
    one_with_specks = [scene(i, specks=8 * (i == 3)) for i in range(16)]  # one image in sixteen proves nothing
    assert choose_cleaning(segmenter(3), MemoryReader(one_with_specks), [1.0] * 3, 0).cleaning is None


def test_a_gain_by_chance_is_rarely_significant():
    """Every class has specks that are right as often as wrong: removing those of some classes looks good by chance.

    A third of these choices would be used if they were judged on the images that they were made on.
    """
    used = 0
    for seed in range(30):
        rng, samples = np.random.default_rng(seed), []
        for i in range(16):
            ids = np.zeros((48, 48), np.uint8)
            ids[42:] = np.arange(48) // 6
            truth = ids.copy()
            for _ in range(10):
                y, x = rng.integers(0, 10, 2) * 4
                label = rng.integers(1, 8)
                ids[y : y + 2, x : x + 2] = label
                truth[y : y + 2, x : x + 2] = label if rng.random() < 0.5 else 0
            predicted = np.where(np.arange(8) == ids[..., None], 0.9, 0.01).astype(np.float32)
            samples.append(Sample(str(i), predicted, truth))
        used += choose_cleaning(segmenter(8), MemoryReader(samples), np.linspace(1, 3, 8), seed).cleaning is not None
    assert used <= 4


def test_the_number_of_images_is_limited_by_memory():
    assert search_images(MemoryReader([])) == []
    large = Sample("x", np.zeros((1, 1, 3), np.uint8), np.broadcast_to(np.uint8(0), (2048, 2048)))
    assert search_images(MemoryReader([large] * 10)) == [0, 3, 6, 9]
    assert len(search_images(MemoryReader([scene(0)] * 500))) == 64


def test_changes_equal_those_of_cleaning_one_class():
    sample = scene(3, specks=12)
    ids = np.asarray(sample.image.argmax(-1), np.uint8)
    changes = _changes(sample.labels, ids, 3)
    before = tallies(confusion(sample.labels, ids, 3))
    regions = region_sizes(ids, np.ones(256, bool))
    for row, size in enumerate(SIZES):
        removed = regions < size
        for label in range(3):
            new_ids = np.where(ids == label, fill_from_nearest(ids, removed), ids)
            np.testing.assert_array_equal(tallies(confusion(sample.labels, new_ids, 3)) - before, changes[row, label])


def test_gains_by_hand():
    rng = np.random.default_rng(0)
    before = rng.integers(1, 50, (6, 3, 2))
    before[:, 1:] += before[:, :1]
    after = before + np.array([3, 0, 0])[None, :, None]
    gain, bound = iou(after) - iou(before), gain_lower_bound(before, after, 1)
    expected = [np.mean([t[0] / (t[1] + t[2] - t[0]) for t in tally.sum(0).T.tolist()]) for tally in (before, after)]
    assert gain == pytest.approx(expected[1] - expected[0]) and 0 < bound <= gain
    assert gain_lower_bound(before, before, 1) == 0


def test_the_default_cleaning_changes_nothing():
    ids = np.zeros((4, 4), np.uint8)
    assert Cleaning() == Cleaning(threshold=None, least=()) and remove_small_regions(ids, ()) is ids

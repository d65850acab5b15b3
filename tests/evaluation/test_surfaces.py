"""Surface scores of a split, compared with brute force by image and class, and their averages."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist

from segpipe.config import EvaluateParams
from segpipe.data.shards import ShardReader, write_shards
from segpipe.evaluation.evaluate import evaluate_candidate
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.scores_file import read_scores
from segpipe.evaluation.scoring import score_images
from segpipe.evaluation.surfaces import SurfaceRule, surface_summary
from segpipe.metrics.surface import surface_scores
from segpipe.samples import IGNORE, Sample
from tests.worlds.evaluated_workspace import CLASSES, make_samples, make_segmenter
from tests.worlds.readers import MemoryReader

QUICK = EvaluateParams(gallery=0, resamples=200)


def by_hand(truth: np.ndarray, prediction: np.ndarray, tolerance: float) -> list[float]:
    """Compute Hausdorff 95, average distance and surface Dice of one class from every pair of surface pixels."""
    true_points, predicted_points = (np.argwhere(mask & ~binary_erosion(mask)) for mask in (truth, prediction))
    distances = cdist(true_points, predicted_points)
    of_truth, of_prediction = distances.min(1), distances.min(0)
    both = np.concatenate([of_truth, of_prediction])
    hausdorff = max(np.percentile(of_truth, 95), np.percentile(of_prediction, 95))
    return [hausdorff, both.mean(), (both <= tolerance).mean()]


def test_the_means_are_those_of_images_and_classes(tmp_path: Path, reader: ShardReader) -> None:
    segmenter = make_segmenter(0.02)
    evaluate_candidate(segmenter, reader, tmp_path, QUICK, "unet")
    expected = np.full((len(reader), 3, 3), np.nan)
    for i, sample in enumerate(reader):
        predicted = np.where(sample.labels == IGNORE, IGNORE, segmenter.predict(sample.image).class_ids)
        for k in range(3):
            true_mask, predicted_mask = sample.labels == k, predicted == k
            if true_mask.any() and predicted_mask.any():
                expected[i, :, k] = by_hand(true_mask, predicted_mask, 2.0)
    scores = read_scores(tmp_path / "per_image.parquet")
    np.testing.assert_allclose(scores.surface, expected, atol=1e-6)
    test = json.loads((tmp_path / "metrics.json").read_text())["test"]["surface"]
    assert (test["images"], test["millimetres"]) == (20, 0)
    for index, name in enumerate(("hd95", "assd", "nsd")):
        by_image = np.nanmean(expected[:, index], axis=1)
        assert test[name]["image"]["macro"] == pytest.approx(by_image.mean(), abs=1e-5)
        assert test[name]["image"]["class"]["cell"] == pytest.approx(np.nanmean(expected[:, index, 1]), abs=1e-5)
        bounds = test["interval"][name]
        assert bounds["low"] < by_image.mean() < bounds["high"]


def test_volumes_are_measured_in_millimetres(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros((9, 20, 24), np.uint8)
    labels[3:7, 5:12, 6:15] = 1
    shifted = np.roll(labels, 1, axis=0)
    sample = Sample("v", rng.random((9, 20, 24, 1), np.float32), labels, spacing=(2.5, 0.8, 0.8))
    rule = SurfaceRule.from_params(QUICK)
    scores = rule.measure(sample, shifted, 2)
    np.testing.assert_allclose(scores, surface_scores(labels, shifted, 2, 2.0, (2.5, 0.8, 0.8)), atol=1e-6)
    assert scores[0, 1] == pytest.approx(2.5), "one slice of 2.5 mm too high"
    assert replace(rule, max_pixels=100).measure(sample, shifted, 2) is None
    assert SurfaceRule.from_params(EvaluateParams(surface=False)).measure(sample, shifted, 2) is None
    assert SurfaceRule.from_params(EvaluateParams(surface=True)).max_pixels == np.inf


def test_a_mean_of_millimetres_and_pixels_does_not_exist() -> None:
    samples = make_samples(4)
    rows = list(score_images(make_segmenter(0.1), MemoryReader(samples), "x", surfaces=SurfaceRule.from_params(QUICK)))
    mixed = [replace(row, millimetres=i == 1) for i, row in enumerate(rows)]
    assert surface_summary(Scores.collect("u", CLASSES.names, {}, rows), QUICK).images == 4
    assert surface_summary(Scores.collect("u", CLASSES.names, {}, mixed), QUICK) is None
    left_out = [replace(mixed[1], surface=None), *rows[2:]]
    assert surface_summary(Scores.collect("u", CLASSES.names, {}, left_out), QUICK).images == 2
    none = [replace(row, surface=None) for row in rows]
    assert surface_summary(Scores.collect("u", CLASSES.names, {}, none), QUICK) is None


def test_images_are_in_order_with_any_number_of_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are the same, in the same order, if images are counted one at a time or several at once."""
    write_shards(tmp_path, "test", make_samples(30), 3)
    reader = ShardReader(tmp_path, "test")
    rule = SurfaceRule.from_params(QUICK)
    several = list(score_images(make_segmenter(0.1), reader, "x", surfaces=rule))
    monkeypatch.setattr("segpipe.evaluation.scoring._MAX_VALUES_AHEAD", 0)
    single = list(score_images(make_segmenter(0.1), reader, "x", surfaces=rule))
    assert [row.key for row in several] == [row.key for row in single] == reader.keys
    for one, other in zip(several, single, strict=True):
        np.testing.assert_array_equal(one.surface, other.surface)
        np.testing.assert_array_equal(one.reliability, other.reliability)

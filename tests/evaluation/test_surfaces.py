"""Surface scores of a split: one image and class at a time by brute force, and how they are averaged."""

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

QUICK = EvaluateParams(gallery=0, resamples=200)


def by_hand(truth: np.ndarray, said: np.ndarray, tolerance: float) -> list[float]:
    """Hausdorff 95, average distance and surface Dice of one class, from every pair of surface pixels."""
    there, found = (np.argwhere(mask & ~binary_erosion(mask)) for mask in (truth, said))
    apart = cdist(there, found)
    of_truth, of_said = apart.min(1), apart.min(0)
    both = np.concatenate([of_truth, of_said])
    return [max(np.percentile(of_truth, 95), np.percentile(of_said, 95)), both.mean(), (both <= tolerance).mean()]


def test_the_means_are_those_of_images_and_classes(tmp_path: Path, reader: ShardReader) -> None:
    segmenter = make_segmenter(0.02)
    evaluate_candidate(segmenter, reader, tmp_path, QUICK, "unet")
    wanted = np.full((len(reader), 3, 3), np.nan)
    for i, sample in enumerate(reader):
        said = np.where(sample.labels == IGNORE, IGNORE, segmenter.predict(sample.image).class_ids)
        for k in range(3):
            there, found = sample.labels == k, said == k
            if there.any() and found.any():
                wanted[i, :, k] = by_hand(there, found, 2.0)
    back = read_scores(tmp_path / "per_image.parquet")
    np.testing.assert_allclose(back.surface, wanted, atol=1e-6)
    test = json.loads((tmp_path / "metrics.json").read_text())["test"]["surface"]
    assert (test["images"], test["millimetres"]) == (20, 0)
    for place, name in enumerate(("hd95", "assd", "nsd")):
        of_images = np.nanmean(wanted[:, place], axis=1)
        assert test[name]["image"]["macro"] == pytest.approx(of_images.mean(), abs=1e-5)
        assert test[name]["image"]["class"]["cell"] == pytest.approx(np.nanmean(wanted[:, place, 1]), abs=1e-5)
        bounds = test["interval"][name]
        assert bounds["low"] < of_images.mean() < bounds["high"]


def test_volumes_are_measured_in_millimetres(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros((9, 20, 24), np.uint8)
    labels[3:7, 5:12, 6:15] = 1
    said = np.roll(labels, 1, axis=0)
    sample = Sample("v", rng.random((9, 20, 24, 1), np.float32), labels, spacing=(2.5, 0.8, 0.8))
    rule = SurfaceRule.of(QUICK)
    found = rule.measure(sample, said, 2)
    np.testing.assert_allclose(found, surface_scores(labels, said, 2, 2.0, (2.5, 0.8, 0.8)), atol=1e-6)
    assert found[0, 1] == pytest.approx(2.5), "a slice of 2.5 mm too high"
    assert replace(rule, most_pixels=100).measure(sample, said, 2) is None
    assert SurfaceRule.of(EvaluateParams(surface=False)).measure(sample, said, 2) is None
    assert SurfaceRule.of(EvaluateParams(surface=True)).most_pixels == np.inf


def test_a_mean_of_millimetres_and_pixels_does_not_exist() -> None:
    samples = make_samples(4)
    rows = list(score_images(make_segmenter(0.1), Listed(samples), "x", surfaces=SurfaceRule.of(QUICK)))
    mixed = [replace(row, millimetres=i == 1) for i, row in enumerate(rows)]
    assert surface_summary(Scores.collect("u", CLASSES.names, {}, rows), QUICK)["images"] == 4
    assert surface_summary(Scores.collect("u", CLASSES.names, {}, mixed), QUICK) == {}
    left_out = [replace(mixed[1], surface=None), *rows[2:]]
    assert surface_summary(Scores.collect("u", CLASSES.names, {}, left_out), QUICK)["images"] == 2
    none = [replace(row, surface=None) for row in rows]
    assert surface_summary(Scores.collect("u", CLASSES.names, {}, none), QUICK) == {}


class Listed(list):  # a reader as far as scoring goes
    split = "test"


def test_images_come_in_order_whatever_threads_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many rows, the same and in the same place, with each image counted at once as with several in flight."""
    write_shards(tmp_path, "test", make_samples(30), 3)
    reader = ShardReader(tmp_path, "test")
    rule = SurfaceRule.of(QUICK)
    several = list(score_images(make_segmenter(0.1), reader, "x", surfaces=rule))
    monkeypatch.setattr("segpipe.evaluation.scoring._AHEAD_VALUES", 0)
    single = list(score_images(make_segmenter(0.1), reader, "x", surfaces=rule))
    assert [row.key for row in several] == [row.key for row in single] == reader.keys
    for one, other in zip(several, single, strict=True):
        np.testing.assert_array_equal(one.surface, other.surface)
        np.testing.assert_array_equal(one.reliability, other.reliability)

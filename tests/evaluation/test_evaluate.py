"""The files that `evaluate` writes: numbers that add up, tables that DVC reads, pictures of bounded size, the same bytes every time."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from segpipe.config import EvaluateParams
from segpipe.data.shards import ShardReader, write_shards
from segpipe.errors import DataError, MissingError
from segpipe.evaluation.evaluate import evaluate_candidate
from segpipe.evaluation.gallery.pictures import EDGE, ERRORS, Gallery, choose_pictures, draw, error_codes, legend
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.scores_file import confusion_csv, read_scores, write_scores
from segpipe.evaluation.scoring import score_images
from segpipe.files import sha256_tree
from segpipe.metrics import confusion
from segpipe.samples import IGNORE, ClassTable, Sample
from tests.metrics.oracles import plain_contour
from tests.worlds.evaluated_workspace import CLASSES, make_samples, make_segmenter
from tests.worlds.readers import MemoryReader

QUICK = EvaluateParams(gallery=2, resamples=200)


@pytest.fixture
def evaluated(tmp_path: Path, reader: ShardReader) -> Path:
    evaluate_candidate(make_segmenter(0.1, data="d1"), reader, tmp_path / "unet", QUICK, "unet", val_score=0.71)
    return tmp_path / "unet"


def test_metrics_json_is_numbers_and_agrees_with_scikit_learn(evaluated: Path, reader: ShardReader) -> None:
    from sklearn.metrics import f1_score, jaccard_score

    segmenter = make_segmenter(0.1)
    counted = [s.labels != IGNORE for s in reader]
    truth = np.concatenate([s.labels[k] for s, k in zip(reader, counted, strict=True)])
    predicted = np.concatenate([segmenter.predict(s.image).class_ids[k] for s, k in zip(reader, counted, strict=True)])
    metrics = json.loads((evaluated / "metrics.json").read_text())
    test = metrics["test"]
    assert test["iou"]["dataset"]["macro"] == pytest.approx(jaccard_score(truth, predicted, average="macro"), abs=1e-6)
    assert test["dice"]["dataset"]["macro"] == pytest.approx(f1_score(truth, predicted, average="macro"), abs=1e-6)
    assert test["iou"]["class"]["nucleus"] == pytest.approx(jaccard_score(truth, predicted, average=None)[2], abs=1e-6)
    assert test["accuracy"]["pixel"] == pytest.approx((truth == predicted).mean(), abs=1e-6)
    assert (test["images"], test["pixels"]) == (20, truth.size)
    bounds = test["interval"]["iou"]["dataset"]["macro"]
    assert bounds["low"] < test["iou"]["dataset"]["macro"] < bounds["high"]
    assert metrics["val"]["iou"]["dataset"]["macro"] == 0.71
    leaves = _leaves(metrics)
    curves = [v for v in leaves if isinstance(v, list)]  # DVC leaves lists out of its tables
    assert len(curves) == 3 and all({"bin", "pixels", "confidence", "right"} == row.keys() for c in curves for row in c)
    assert all(isinstance(v, int | float | list) for v in leaves if v != metrics["engine"])


def test_metrics_json_holds_boundaries_and_averages_by_name(evaluated: Path, reader: ShardReader) -> None:
    """Boundary IoU is compared with a count by every pixel's neighbours; absence is never counted as success."""
    segmenter = make_segmenter(0.1)
    shared, either = np.zeros(3), np.zeros(3)
    for sample in reader:
        predicted = np.where(sample.labels == IGNORE, IGNORE, segmenter.predict(sample.image).class_ids)
        for k in range(3):
            true_band, predicted_band = (plain_contour(m == k, 1) for m in (sample.labels, predicted))
            shared[k] += np.count_nonzero(true_band & predicted_band)
            either[k] += np.count_nonzero(true_band | predicted_band)
    test = json.loads((evaluated / "metrics.json").read_text())["test"]
    bands = test["boundary_iou"]
    np.testing.assert_allclose([bands["class"][name] for name in CLASSES.names], shared / either, atol=1e-6)
    assert bands["dataset"]["macro"] == pytest.approx((shared / either).mean(), abs=1e-6)
    assert 0 < bands["image"]["macro"] < 1
    assert test["iou"]["image"]["class"]["cell"] < 1 and test["mcc"]["dataset"]["multiclass"] > 0.5
    assert "empty1" not in json.dumps(test)


def test_the_name_of_a_class_may_contain_dots(tmp_path: Path) -> None:
    classes = ClassTable.from_names(["back.ground", "cell.a_empty1", "image.class.x"])
    write_shards(tmp_path, "test", make_samples(4), 3)
    reader = ShardReader(tmp_path, "test")
    evaluate_candidate(make_segmenter(0.1, classes=classes), reader, tmp_path / "x", QUICK, "unet")
    iou = json.loads((tmp_path / "x" / "metrics.json").read_text())["test"]["iou"]
    assert list(iou["class"]) == list(iou["image"]["class"]) == classes.names


def test_a_table_of_an_earlier_version_has_no_boundaries(tmp_path: Path) -> None:
    rows = [
        replace(row, boundary=None) for row in score_images(make_segmenter(0.2), MemoryReader(make_samples(3)), "x")
    ]
    write_scores(tmp_path / "p.parquet", "unet", CLASSES.names, {}, rows)
    table = pq.read_table(tmp_path / "p.parquet")
    pq.write_table(table.drop_columns(["boundary"]), tmp_path / "old.parquet")
    for name in ("p", "old"):
        scores = read_scores(tmp_path / f"{name}.parquet")
        assert scores.boundary is None and scores.boundary_iou() == {} and len(scores.keys) == 3


def _leaves(node: object) -> list[object]:
    return [x for v in node.values() for x in _leaves(v)] if isinstance(node, dict) else [node]


def test_the_same_model_gives_the_same_bytes(evaluated: Path, tmp_path: Path, reader: ShardReader) -> None:
    evaluate_candidate(make_segmenter(0.1, data="d1"), reader, tmp_path / "again", QUICK, "unet", val_score=0.71)
    assert sha256_tree(tmp_path / "again") == sha256_tree(evaluated)


def test_scores_are_equal_after_writing_and_reading(evaluated: Path, reader: ShardReader) -> None:
    segmenter = make_segmenter(0.1)
    direct = Scores.collect("unet", CLASSES.names, {"data": "d1"}, score_images(segmenter, reader, "again"))
    loaded = read_scores(evaluated / "per_image.parquet")
    np.testing.assert_array_equal(loaded.tally, direct.tally)
    np.testing.assert_array_equal(loaded.confusion, direct.confusion)
    np.testing.assert_array_equal(loaded.boundary, direct.boundary)
    assert (loaded.keys, loaded.groups, loaded.classes, loaded.lineage) == (
        direct.keys,
        direct.groups,
        direct.classes,
        direct.lineage,
    )
    assert loaded.keys == reader.keys and loaded.groups[3] == "slide 3"


def test_per_image_rows_stand_alone(evaluated: Path, reader: ShardReader) -> None:
    """Users read the table with pandas: one row per image, with its own counts and scores."""
    import pandas as pd

    frame = pd.read_parquet(evaluated / "per_image.parquet")
    sample = reader[4]
    counts = confusion(sample.labels, make_segmenter(0.1).predict(sample.image).class_ids, 3)
    row = frame[frame["key"] == sample.key].iloc[0]
    np.testing.assert_array_equal(np.array(row["confusion"]).reshape(3, 3), counts)
    assert row["accuracy"] == pytest.approx(np.trace(counts) / counts.sum())
    assert (row["height"], row["width"], row["group"]) == (40, 52, sample.group)


def test_scores_are_aligned_by_key() -> None:
    rows = list(score_images(make_segmenter(0.1), MemoryReader(make_samples(6)), "x"))
    one = Scores.collect("a", CLASSES.names, {}, rows)
    other = Scores.collect("b", CLASSES.names, {}, rows[::-1])
    np.testing.assert_array_equal(one.aligned(other).tally, one.tally)
    np.testing.assert_array_equal(one.aligned(other).boundary, one.boundary)
    with pytest.raises(DataError, match="different images"):
        one.aligned(Scores.collect("b", CLASSES.names, {}, rows[1:]))


def test_a_missing_or_invalid_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no scores here"):
        read_scores(tmp_path / "per_image.parquet")
    (tmp_path / "per_image.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="not a table of scores"):
        read_scores(tmp_path / "per_image.parquet")


def test_an_empty_split_and_an_unlabelled_image_are_refused(tmp_path: Path) -> None:
    segmenter = make_segmenter(0.0)
    with pytest.raises(DataError, match="no image to score"):
        evaluate_candidate(segmenter, MemoryReader(make_samples(0)), tmp_path / "x", QUICK, "unet")
    write_shards(tmp_path, "test", [Sample("bare", np.zeros((8, 8, 1), np.float32))], 3)
    with pytest.raises(DataError, match="bare: an image without a label"):
        evaluate_candidate(segmenter, ShardReader(tmp_path, "test"), tmp_path / "x", QUICK, "unet")
    assert not (tmp_path / "x" / "per_image.parquet").exists(), "a failed run leaves no partial file"


def test_images_in_which_nothing_counts(tmp_path: Path) -> None:
    """No score exists: metrics.json has no NaN, and the gallery is empty."""
    blank = [Sample(f"b{i}", s.image, np.full_like(s.labels, IGNORE)) for i, s in enumerate(make_samples(3))]
    write_shards(tmp_path, "test", blank, 3)
    evaluate_candidate(make_segmenter(0.0), ShardReader(tmp_path, "test"), tmp_path / "x", QUICK, "unet")
    assert json.loads((tmp_path / "x" / "metrics.json").read_text()) == {
        "test": {"images": 3, "pixels": 0},
        "engine": "reading",
    }
    assert Gallery.read(tmp_path / "x" / "gallery").pictures == []


def test_many_images_are_written_in_batches(tmp_path: Path) -> None:
    rows = list(score_images(make_segmenter(0.2), MemoryReader(make_samples(150)), "x"))
    write_scores(tmp_path / "p.parquet", "unet", CLASSES.names, {}, iter(rows))
    assert read_scores(tmp_path / "p.parquet").keys == [r.key for r in rows]


def test_confusion_csv_has_a_hundred_rows_per_class() -> None:
    counts = np.array([[999, 1, 0], [2, 2, 2], [0, 0, 0]])
    rows = list(csv.DictReader(confusion_csv(counts, ["a, b", "c", "d"]).splitlines()))
    counted = Counter((r["actual"], r["predicted"]) for r in rows)
    assert counted == {("a, b", "a, b"): 100, ("c", "a, b"): 34, ("c", "c"): 33, ("c", "d"): 33}


def test_the_gallery_is_bounded_and_described(evaluated: Path) -> None:
    gallery = Gallery.read(evaluated / "gallery")
    assert Counter(p.kind for p in gallery.pictures) == {"worst": 2, "typical": 2, "best": 2}
    scores = [p.iou_macro for p in gallery.pictures]
    assert scores[:2] == sorted(scores)[:2] and scores[4:] == sorted(scores)[4:]
    files = [getattr(p, what) for p in gallery.pictures for what in ("image", "truth", "prediction", "errors")]
    assert sorted([*files, "index.json"]) == sorted(p.name for p in (evaluated / "gallery").iterdir())
    for p in gallery.pictures:
        assert cv2.imread(str(evaluated / "gallery" / p.errors)).shape == (p.height, p.width, 3)


def test_pictures_are_at_most_480_pixels() -> None:
    labels = np.zeros((1200, 700), np.uint8)
    labels[300:900, 200:500] = 1
    pictures = draw(np.full((1200, 700, 3), 90, np.uint8), labels, labels, CLASSES)
    assert {p.shape for p in pictures.values()} == {(EDGE, 280, 3)}
    centre = pictures["errors"][240, 140].astype(int)
    assert centre[1] > centre[0] and centre[1] > centre[2], "right pixels are tinted green"


def test_error_codes_by_hand() -> None:
    truth = np.array([[0, 0, 1, 1, 1, IGNORE]], np.uint8)
    predicted = np.array([[0, 1, 0, 1, 2, 2]], np.uint8)
    names = [None if c == 0 else ERRORS[c - 1].name for c in error_codes(truth, predicted, background=True)[0]]
    assert names == [None, "false alarm", "missed", "right", "other class", None]
    names = [None if c == 0 else ERRORS[c - 1].name for c in error_codes(truth, predicted, background=False)[0]]
    assert names == [None, "other class", "other class", None, "other class", None]
    assert [e.name for e in legend(ClassTable.from_names(["background", "cell"]))] == ["right", "false alarm", "missed"]
    assert [e.name for e in legend(ClassTable.from_names(["sky", "road"]))] == ["other class"]


@pytest.mark.parametrize("images", [0, 1, 2, 3, 4, 7, 40])
@pytest.mark.parametrize("per_kind", [0, 1, 4, 50])
def test_no_image_is_chosen_twice(images: int, per_kind: int) -> None:
    values = np.random.default_rng(images).random(images)
    chosen = choose_pictures(values, per_kind)
    indices = [index for _, index in chosen]
    assert len(set(indices)) == len(indices) <= min(images, 3 * per_kind)
    assert len(indices) == min(images, 3 * per_kind) or images < 3 * per_kind
    if per_kind and images:
        assert values[dict(reversed(chosen))["worst"]] == values.min()
    if per_kind and images >= 3 * per_kind:
        assert Counter(kind for kind, _ in chosen) == {"worst": per_kind, "typical": per_kind, "best": per_kind}


def test_images_without_a_score_are_not_chosen() -> None:
    assert [i for _, i in choose_pictures(np.array([np.nan, 0.3, np.nan]), 2)] == [1]

"""metrics.json: the same bytes after reading and writing, files of earlier versions, and what is said of a file that does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segpipe.config import EvaluateParams
from segpipe.data.shards import ShardReader
from segpipe.errors import DataError
from segpipe.evaluation.cost import Cost
from segpipe.evaluation.evaluate import CandidateFacts, collect_metrics, evaluate_candidate
from segpipe.evaluation.metric_lookup import ScoreTable
from segpipe.evaluation.metrics_file import METRICS_FILE, FoldSummary, MetricsFile
from segpipe.evaluation.scores_file import read_scores
from tests.worlds.evaluated_workspace import make_segmenter

COST = Cost(engine="torch", images=8, runs=32, p50_ms=29.53, p95_ms=42.696)
FACTS = CandidateFacts(
    temperature=0.954709,
    weight_bytes=17_305_948,
    ranking_score=0.7654321,
    cost=COST,
    folds=FoldSummary(mean=0.6, sd=0.01),
)
SETTINGS = EvaluateParams(gallery=0, resamples=200, robustness="quick", rank_by="dice.dataset.macro")


@pytest.fixture
def path(tmp_path: Path, reader: ShardReader) -> Path:
    """A metrics.json with every section but `instance`."""
    evaluate_candidate(make_segmenter(0.1), reader, tmp_path / "unet", SETTINGS, "unet", 0.81, FACTS)
    return tmp_path / "unet" / METRICS_FILE


def test_reading_and_writing_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    metrics = MetricsFile.read(path)
    metrics.write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_sections_and_keys_are_in_their_order(path: Path) -> None:
    content = json.loads(path.read_text())
    assert list(content) == ["test", "val", "model", "engine", "cost"]
    ratios = ["iou", "dice", "precision", "recall", "accuracy", "mcc", "boundary_iou"]
    sections = ["interval", "surface", "slices", "calibration", "robustness"]
    assert list(content["test"]) == ["images", "pixels", *ratios, *sections]
    assert list(content["test"]["iou"]) == ["dataset", "image", "class"]
    assert list(content["test"]["surface"]) == ["images", "millimetres", "interval", "hd95", "assd", "nsd"]
    assert list(content["test"]["calibration"]) == ["ece", "interval", "mce", "curve", "thinned", "class"]
    assert list(content["test"]["robustness"]) == ["images", "units", "by", "score"]
    assert list(content["test"]["robustness"]["by"]["blur"]["medium"]) == ["score", "drop", "low", "high"]
    assert content["val"] == {
        "dice": {"dataset": {"macro": 0.765432}},
        "iou": {"dataset": {"macro": 0.81}},
        "calibration": {"temperature": 0.954709},
        "folds": {"mean": 0.6, "sd": 0.01},
    }
    assert list(content["val"]) == ["dice", "iou", "calibration", "folds"], "the ranking metric is first"
    assert content["model"] == {"megabytes": 17.305948}
    assert list(content["cost"]) == ["engine", "images", "runs", "p50_ms", "p95_ms"], "None is not written"


def test_scores_by_name(path: Path) -> None:
    metrics = MetricsFile.read(path)
    assert metrics.val_score("dice.dataset.macro") == 0.765432
    assert metrics.val_score("iou.dataset.macro") == 0.81
    assert metrics.val_score("iou.dataset") is None and metrics.val_score("instance.f1_50") is None
    assert metrics.temperature == 0.954709
    assert MetricsFile().val_score("iou.dataset.macro") is None and MetricsFile().temperature is None


@pytest.mark.parametrize(
    "name",
    [
        "iou.dataset.macro",
        "iou.class.a.b",
        "iou.image.class.a.b",
        "iou.image.class_empty1.a",
        "accuracy.pixel",
        "instance.class.a.b.pq",
    ],
)
def test_a_table_returns_the_scores_that_were_put_in(name: str) -> None:
    table = ScoreTable({})
    for index, entry in enumerate([name, "iou.dataset.micro", "iou.class.c", "instance.ap"]):
        table.put(entry, index / 2)
    assert [table.value(entry) for entry in (name, "iou.dataset.micro", "instance.ap")] == [0, 0.5, 1.5]
    assert table.value("dice.dataset.macro") is None and table.value("iou.class") is None


def test_sections_that_an_earlier_version_did_not_write_are_none(tmp_path: Path) -> None:
    path = tmp_path / METRICS_FILE
    curve = {"09": {"pixels": 3, "confidence": 0.9, "right": 1}, "03": {"pixels": 1, "confidence": 0.5, "right": 0}}
    old = {"test": {"iou": {"dataset": {"macro": 0.5}}, "calibration": {"ece": 0.1, "curve": curve}, "removed": 3}}
    path.write_text(json.dumps(old))
    metrics = MetricsFile.read(path)
    assert metrics.test is not None and metrics.test.iou is not None
    assert metrics.test.iou.model_dump() == {"dataset": {"macro": 0.5}}
    assert (metrics.val, metrics.model, metrics.cost, metrics.test.images, metrics.test.surface) == (None,) * 5
    assert metrics.test.calibration is not None and metrics.test.calibration.curve is not None
    assert [(row.bin, row.pixels) for row in metrics.test.calibration.curve] == [(3, 1), (9, 3)]
    path.write_text("{}")
    assert MetricsFile.read(path) == MetricsFile()


def test_a_file_that_does_not_fit_is_an_error_or_empty(tmp_path: Path) -> None:
    path = tmp_path / "unet" / METRICS_FILE
    path.parent.mkdir()
    path.write_text('{"model": {"megabytes": "many"}}')
    with pytest.raises(DataError, match=r"is not a valid metrics file: `model.megabytes`.*dvc repro -f evaluate@unet"):
        MetricsFile.read(path)
    assert MetricsFile.parse(path.read_bytes()) == MetricsFile.parse(None) == MetricsFile()
    assert MetricsFile.parse(b'{"model": {"megabytes": 2}}').model is not None


def test_nothing_known_of_a_candidate_leaves_its_sections_out(path: Path) -> None:
    metrics = collect_metrics(read_scores(path.parent / "per_image.parquet"), SETTINGS, None)
    assert (metrics.val, metrics.model, metrics.cost) == (None, None, None)

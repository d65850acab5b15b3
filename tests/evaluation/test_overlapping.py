"""What is told of a model whose classes overlap: scores of each class, its errors, a page; and what is not told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from segpipe.config import Params, parse_params
from segpipe.data.manifest.fingerprint import Fingerprint
from segpipe.data.shards import ShardReader, write_shards
from segpipe.errors import ConfigError
from segpipe.evaluation.calibration import fit_temperature_on
from segpipe.evaluation.evaluate import evaluate_candidate
from segpipe.evaluation.gallery.pictures import error_codes
from segpipe.evaluation.metric_lookup import main_scores
from segpipe.evaluation.scores_file import read_scores
from segpipe.evaluation.slice_attributes import median_instance_area
from segpipe.metrics import metric
from segpipe.pages.comparison.result import compare_models
from segpipe.pages.report import write_report
from segpipe.samples import IGNORE, ClassSpec, ClassTable, Sample
from tests.worlds.evaluated_workspace import Reading, make_samples, make_segmenter
from tests.worlds.judged_scores import select

AS_SETS = np.arange(256, dtype=np.uint8)
AS_SETS[:3] = [0, 1, 3]
"""Rings and middles of the discs as a cell, and a nucleus that lies over it."""

SPECS = tuple(ClassSpec(name=n, value=v, color=(9, v, 9)) for n, v in (("background", 0), ("cell", 1), ("nucleus", 2)))
CLASSES = ClassTable(classes=SPECS, overlapping=True)
PARAMS = "candidates: {unet: {family: unet}}\nevaluate: {gallery: 2, resamples: 200, robustness: quick}\ngates: {baseline: null}"


class ReadingSets(Reading):
    """What `Reading` reads, told as a score for each class."""

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        read = super().__call__(batch).argmax(1)
        return np.stack([read == 0, read > 0, read == 2], axis=1).astype(np.float32) * 8 - 4


def overlapping(samples: list[Sample]) -> list[Sample]:
    return [Sample(s.key, s.image, AS_SETS[s.labels], group=s.group) for s in samples if s.labels is not None]


@pytest.fixture(scope="module")
def params() -> Params:
    return parse_params(PARAMS)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, params: Params) -> Path:
    folder = tmp_path_factory.mktemp("overlapping")
    write_shards(folder / "shards", "test", overlapping(make_samples(20, groups=8)), CLASSES.labelling)
    segmenter = make_segmenter(0.1, classes=CLASSES, data="d1", plan="p")
    segmenter.engine = ReadingSets(0.1)
    reader = ShardReader(folder / "shards", "test")
    evaluate_candidate(segmenter, reader, folder / "evaluation" / "unet", params.evaluate, "unet", val_score=0.8)
    assert fit_temperature_on(segmenter, reader) is None
    (folder / "champion.json").write_text(json.dumps({"version": None}))
    return folder


def test_scores_are_scikit_learns(root: Path) -> None:
    from sklearn.metrics import f1_score, jaccard_score

    truth, said = [], []
    segmenter = make_segmenter(0.1, classes=CLASSES)
    segmenter.engine = ReadingSets(0.1)
    for sample in ShardReader(root / "shards", "test"):
        assert sample.labels is not None
        counted = sample.labels != IGNORE
        members = CLASSES.labelling.members
        truth.append(members[sample.labels[counted]])
        said.append(members[segmenter.predict(sample.image).class_ids[counted]])
    y, p = np.concatenate(truth), np.concatenate(said)
    told = json.loads((root / "evaluation" / "unet" / "metrics.json").read_text())["test"]
    for place, name in enumerate(CLASSES.names):
        assert told["iou"]["class"][name] == pytest.approx(jaccard_score(y, p, average=None)[place], abs=1e-6)
        assert told["dice"]["class"][name] == pytest.approx(f1_score(y, p, average=None)[place], abs=1e-6)
    assert told["iou"]["dataset"]["macro"] == pytest.approx(jaccard_score(y, p, average="macro"), abs=1e-6)
    assert told["pixels"] == len(y) and told["robustness"]["images"] == 20
    assert not {"accuracy", "mcc", "calibration"} & told.keys()


def test_one_class_a_pixel_scores_alike_as_sets(tmp_path: Path, params: Params) -> None:
    one_each = np.arange(256, dtype=np.uint8)
    one_each[:3] = [0, 1, 2]
    samples = make_samples(6)
    plain, sets = tmp_path / "plain", tmp_path / "sets"
    write_shards(plain, "test", samples, 3)
    write_shards(
        sets,
        "test",
        [Sample(s.key, s.image, one_each[s.labels]) for s in samples if s.labels is not None],
        CLASSES.labelling,
    )

    class AsBits(Reading):
        def __call__(self, batch: np.ndarray) -> np.ndarray:
            read = super().__call__(batch).argmax(1)
            return np.stack([read == k for k in range(3)], axis=1).astype(np.float32) - 0.5

    told = []
    for folder, classes, engine in (
        (plain, ClassTable.from_names(CLASSES.names), Reading(0.2)),
        (sets, CLASSES, AsBits(0.2)),
    ):
        segmenter = make_segmenter(0.2, classes=classes)
        segmenter.engine = engine
        quick = params.evaluate.model_copy(update={"robustness": "off"})
        evaluate_candidate(segmenter, ShardReader(folder, "test"), folder / "out", quick, "unet")
        told.append(json.loads((folder / "out" / "metrics.json").read_text())["test"])
    for part in ("iou", "dice", "boundary_iou", "surface", "interval"):
        assert told[0][part] == told[1][part]


def test_scores_of_all_pixels_do_not_exist(root: Path) -> None:
    scores = read_scores(root / "evaluation" / "unet" / "per_image.parquet")
    assert scores.overlapping and scores.value("iou.class.nucleus") and "accuracy.pixel" not in main_scores(scores)
    with pytest.raises(ConfigError, match="does not exist where classes overlap"):
        scores.value("accuracy.pixel")
    with pytest.raises(ConfigError, match="does not exist where classes overlap"):
        metric("mcc.class.cell", CLASSES.names, overlapping=True)


def test_two_models_are_compared(root: Path, params: Params) -> None:
    scores = read_scores(root / "evaluation" / "unet" / "per_image.parquet")
    found = compare_models(scores, scores, params.evaluate)
    assert found.same_answers and found.scores is not None and found.classes is not None
    names = [row.name for _, rows in (*found.scores.groups, *found.classes.groups) for row in rows]
    assert "nucleus" in names and "pixel accuracy" not in names


def test_the_page_shows_sets(root: Path, params: Params, fingerprint: Fingerprint) -> None:
    told = fingerprint.model_copy(update={"classes": CLASSES})
    write_report(
        root, select(root, params, told, root / "shards"), params, told, root / "r.html", None, root / "shards"
    )
    page = (root / "r.html").read_text()
    assert "cell + nucleus" in page and "nucleus</td>" in page.replace("\n", "")
    rows = (root / "evaluation" / "unet" / "confusion.csv").read_text().splitlines()
    assert {row.split(",")[0] for row in rows[1:]} == {"background", "cell", "cell + nucleus"}


def test_errors_are_what_is_too_many_and_what_lacks() -> None:
    truth = np.array([[0, 0, 3, 3, 3, 1, IGNORE]], np.uint8)
    said = np.array([[0, 1, 3, 1, 7, 2, 1]], np.uint8)
    assert error_codes(truth, said, True, overlapping=True).tolist() == [[0, 2, 1, 3, 2, 4, 0]]


def test_an_object_is_a_region_of_its_class_whatever_lies_over_it() -> None:
    labels = np.zeros((12, 12), np.uint8)
    labels[1:11, 1:11] = 1
    labels[4:6, 4:6] = 3
    sample = Sample("a", np.zeros((12, 12, 1), np.uint8), labels)
    assert median_instance_area(sample, True, CLASSES.labelling) == (100 + 4) / 2

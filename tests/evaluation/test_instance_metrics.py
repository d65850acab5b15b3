"""Scores of objects where they decide: gates, ranking, comparisons."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segpipe.config import EvaluateParams, Params, parse_params
from segpipe.data.manifest.fingerprint import Fingerprint
from segpipe.data.shards import ShardReader, write_shards
from segpipe.errors import ConfigError, DataError
from segpipe.evaluation.evaluate import CandidateFacts, evaluate_candidate, measure_ranking_score
from segpipe.evaluation.metric_lookup import check_scores, compare_on, describe_metric, interval_of
from segpipe.evaluation.paired_statistics import permutation_test
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.scores_file import read_scores
from segpipe.gates.case import Case, Champion
from segpipe.gates.judge import judge
from segpipe.gates.verdicts import GateVerdict
from segpipe.inference.postprocess import Postprocess
from segpipe.inference.segmenter import Segmenter
from segpipe.metrics.average_precision import AveragePrecisionCounter
from segpipe.metrics.instances import InstanceCounts, InstanceMasks, challenge_score, count_instances, panoptic_quality
from segpipe.pages.comparison.result import compare_models
from segpipe.pages.components.disagreement import ScoredModel, draw_disagreements
from segpipe.samples import IGNORE, Sample
from tests.evaluation.test_instance_counts import cells
from tests.worlds.evaluated_workspace import CLASSES, Reading, make_segmenter
from tests.worlds.judged_scores import select

QUICK = EvaluateParams(gallery=0, resamples=300, surface=False)
NAMES = ["f1_50", "pq", "sq", "rq", "challenge", "ap", "ap50", "ap75"]


class Shaved(Reading):
    """An engine that misses the upper rows of whatever it sees."""

    def __init__(self, rows: int) -> None:
        super().__init__(0.0)
        self.rows = rows

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        above = np.pad(batch, ((0, 0), (0, 0), (self.rows, 0), (0, 0)), mode="edge")[:, :, : batch.shape[2]]
        return super().__call__(np.minimum(batch, above))


def told_apart(candidate: str) -> Segmenter:
    """`sharp` loses no pixel but the small objects, `whole` a row of each object, `kmeans` three."""
    rows, least = {"sharp": (0, 60), "whole": (1, 3), "kmeans": (3, 3)}[candidate]
    spec = make_segmenter(0.0, candidate).spec
    return Segmenter(
        spec.model_copy(update={"postprocess": Postprocess(method="components", min_size=least)}), Shaved(rows)
    )


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [cells(i, ignored=True) for i in range(12)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, samples: list[Sample]) -> Path:
    """A workspace: `sharp` has the better pixels, `whole` the better objects."""
    root = tmp_path_factory.mktemp("instance")
    for split in ("test", "val"):
        write_shards(root / "shards", split, samples, len(CLASSES))
    reader, val = (ShardReader(root / "shards", split) for split in ("test", "val"))
    for name, score in (("sharp", 0.9), ("whole", 0.8), ("kmeans", None)):
        segmenter = told_apart(name)
        known = CandidateFacts(val_ranked=measure_ranking_score(segmenter, val, "instance.f1_50"))
        wanted = QUICK.model_copy(update={"rank_by": "instance.f1_50"})
        evaluate_candidate(segmenter, reader, root / "evaluation" / name, wanted, name, score, known)
    (root / "champion.json").write_text(json.dumps({"version": None}))
    return root


def scores_of(root: Path, name: str) -> Scores:
    return read_scores(root / "evaluation" / name / "per_image.parquet")


def test_every_score_is_the_one_that_metrics_json_tells(root: Path) -> None:
    found = scores_of(root, "whole")
    told = json.loads((root / "evaluation/whole/metrics.json").read_text())["test"]["instance"]
    for name in NAMES:
        assert found.value(f"instance.{name}") == pytest.approx(told[name], abs=1e-6), name
    for label in CLASSES.names[1:]:
        for name, value in told["class"][label].items():
            if name in NAMES:
                assert found.value(f"instance.class.{label}.{name}") == pytest.approx(value, abs=1e-6), (label, name)
    sure = interval_of("instance.f1_50", found, QUICK)
    assert told["interval"]["f1_50"] == {"low": round(sure.low, 6), "high": round(sure.high, 6)}


def test_each_image_alone(root: Path, samples: list[Sample]) -> None:
    found, segmenter = scores_of(root, "whole"), told_apart("whole")
    expected: dict[str, list[float]] = {name: [] for name in ("pq", "f1_50", "challenge", "ap")}
    for sample in samples:
        said = segmenter.predict(sample.image, instances=True).instances
        assert said is not None and sample.labels is not None
        pair, ignored = [InstanceMasks.from_instances(o) for o in (sample.objects(), said)], sample.labels == IGNORE
        score = count_instances(*pair, len(CLASSES), ignored)
        hits, truth, claimed = score.tallies[0].sum(-1)
        counter = AveragePrecisionCounter(len(CLASSES))
        counter.add(*pair, ignored)
        expected["pq"].append(float(np.nanmean(panoptic_quality(score).pq)))
        expected["f1_50"].append(2 * hits / (truth + claimed))
        expected["challenge"].append(challenge_score(score))
        expected["ap"].append(counter.result().ap)
    for name, values in expected.items():
        np.testing.assert_allclose(found.of_images(f"instance.{name}"), values, atol=1e-12)


def test_resamples_are_those_of_the_resampled_images(root: Path) -> None:
    found = scores_of(root, "whole")
    rng = np.random.default_rng(0)
    assert found.detections is not None
    sure = [replace(one, scores=np.sort(rng.random(len(one)))[::-1]) for one in found.detections]
    found = replace(found, detections=sure)  # without ties, which repeated images would deal out in another way
    drawn = np.sort(rng.integers(0, 12, (6, 12)), axis=1)
    weights = np.stack([np.bincount(row, minlength=12) for row in drawn]).astype(float)
    for name in NAMES:
        expected = [found.at(row).value(f"instance.{name}") for row in drawn]
        np.testing.assert_allclose(found.statistic(f"instance.{name}", by_image=True)(weights), expected, err_msg=name)
    assert found.objects is not None and found.object_iou is not None
    score = InstanceCounts(found.objects[drawn[0]].sum(0), found.object_iou[drawn[0]].sum(0))
    assert found.at(drawn[0]).value("instance.pq") == pytest.approx(np.nanmean(panoptic_quality(score).pq))


@pytest.mark.parametrize("name", ["instance.ap50", "instance.pq"])
def test_exchanged_models_have_each_others_answers(root: Path, name: str) -> None:
    ours, theirs = scores_of(root, "sharp"), scores_of(root, "whole")
    swapped = np.random.default_rng(1).integers(0, 2, (5, 12)).astype(float)
    first, second = ours.statistic(name, by_image=True).exchanged(theirs.statistic(name, by_image=True), swapped)
    for row, one, other in zip(swapped > 0, first, second, strict=True):
        for kept, value in ((~row, one), (row, other)):
            assert mixed(ours, theirs, kept).value(name) == pytest.approx(value)
    same = ours.statistic(name)
    assert permutation_test(same, same, 50) == 1


def mixed(ours: Scores, theirs: Scores, kept: np.ndarray) -> Scores:
    """The objects of one model on some images, of the other on the rest."""
    assert ours.detections is not None and theirs.detections is not None
    found = [(a if k else b) for a, b, k in zip(ours.detections, theirs.detections, kept, strict=True)]
    return replace(
        ours,
        detections=found,
        objects=np.where(kept[:, None, None, None], ours.objects, theirs.objects),  # type: ignore[arg-type]
        object_iou=np.where(kept[:, None], ours.object_iou, theirs.object_iou),  # type: ignore[arg-type]
    )


def gate(case: Case, text: str) -> GateVerdict:
    off = {"floor", "baseline", "champion", "test_size"} - {text.split(":")[0]}
    given = parse_params(f"candidates: {{unet: {{family: unet}}}}\ngates: {{{text}}}").gates
    (verdict,) = judge(given.model_copy(update=dict.fromkeys(off)), case)
    return verdict


def test_gates_judge_objects(root: Path) -> None:
    sharp, whole, kmeans = (scores_of(root, name) for name in ("sharp", "whole", "kmeans"))
    assert sharp.value("iou.dataset.macro") > whole.value("iou.dataset.macro")  # type: ignore[operator]
    case = Case(QUICK, sharp, kmeans, Champion("v0.1.0", whole))
    assert gate(case, "champion: {margin: 0.02}").verdict == "pass", "by its pixels it is better"
    for name in ("f1_50", "pq", "ap50"):
        lost = gate(case, f"champion: {{metric: instance.{name}, margin: 0.02}}")
        assert lost.verdict == "fail" and describe_metric(f"instance.{name}") in lost.sentence and lost.worst
        assert lost.p_value is not None and lost.p_value < 0.05
        back = gate(
            Case(QUICK, whole, None, Champion("v0.1.0", sharp)),
            f"champion: {{metric: instance.{name}, superior: true}}",
        )
        assert back.verdict == "pass", back.sentence
    sliced = gate(case, "slice: {metric: instance.f1_50, least_images: 3}")
    assert sliced.verdict != "pass" and "F1 of objects at IoU 0.5" in sliced.sentence
    assert gate(case, "baseline: {metric: instance.ap}").metric == "instance.ap"
    value = whole.value("instance.ap50")
    assert value is not None
    on_whole = Case(QUICK, whole)
    assert gate(on_whole, f"floor: {{metric: instance.ap50, at_least: {value + 1e-4}}}").verdict == "fail"
    low = interval_of("instance.ap50", whole, QUICK).low
    assert gate(on_whole, f"floor: {{metric: instance.ap50, at_least: {low - 1e-6}}}").verdict == "pass"


def test_class_floors_of_objects_leave_out_classes_without_any(root: Path) -> None:
    case = Case(QUICK, scores_of(root, "whole"))
    found = gate(case, "class_floor: {ratio: instance.f1_50, at_least: 0.05}")
    assert {part.name for part in found.parts} == {"cell", "nucleus"} and found.verdict == "pass"
    assert "F1 of objects at IoU 0.5 of class" in found.sentence
    for part in found.parts:
        assert part.estimate == pytest.approx(case.winner.value(f"instance.class.{part.name}.f1_50"))


def test_a_champion_without_objects_can_not_be_compared(root: Path) -> None:
    whole = scores_of(root, "whole")
    bare = replace(whole, objects=None, object_iou=None, detections=None)
    found = gate(Case(QUICK, whole, None, Champion("v0.1.0", bare)), "champion: {metric: instance.pq}")
    assert found.verdict == "cannot tell" and "tells no objects apart" in found.sentence


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("instance.f1", "did you mean `instance.f1_50`"),
        ("instance.class.cell.f1_5", "did you mean `instance.class.cell.f1_50`"),
        ("instance.class.lake.pq", "no such class"),
        ("instance.xyz", "known here: f1_50"),
    ],
)
def test_unknown_scores_are_errors_with_the_fix(root: Path, name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        interval_of(name, scores_of(root, "whole"), QUICK)


def test_a_gate_on_objects_that_there_are_not_is_a_config_error(root: Path) -> None:
    bare = replace(scores_of(root, "whole"), objects=None, object_iou=None, detections=None)
    with pytest.raises(ConfigError) as error:
        gate(Case(QUICK, bare), "champion: {metric: instance.ap50}")
    assert "import objects" in str(error.value) and "instance.ap50" in str(error.value)
    old = replace(scores_of(root, "whole"), detections=None)
    assert gate(Case(QUICK, old), "floor: {metric: instance.pq, at_least: 0.01}").verdict == "pass"
    with pytest.raises(ConfigError, match="dvc repro -f evaluate@whole"):
        interval_of("instance.ap", old, QUICK)


def ranked_by(name: str) -> Params:
    return parse_params(
        "candidates: {sharp: {family: unet}, whole: {family: unet}, kmeans: {family: kmeans}}\n"
        f"evaluate: {{rank_by: {name}, resamples: 300}}"
    )


def test_the_winner_is_the_best_by_what_candidates_are_ranked_by(root: Path, fingerprint: Fingerprint) -> None:
    by_pixels = select(root, ranked_by("iou.dataset.macro"), fingerprint, root / "shards")
    assert by_pixels.winner == "sharp" and by_pixels.metric == "iou.dataset.macro"
    by_objects = select(root, ranked_by("instance.f1_50"), fingerprint, root / "shards")
    assert by_objects.winner == "whole" and "by F1 of objects at IoU 0.5" in by_objects.summary
    first = by_objects.ranking[0]
    found = scores_of(root, "whole")
    assert first.val == pytest.approx(found.value("instance.f1_50"), abs=1e-6), "val holds the same images here"
    assert next(iter(first.test)) == "instance.f1_50" == by_objects.metric
    assert first.interval is not None and first.interval.low == interval_of("instance.f1_50", found, QUICK).low
    with pytest.raises(DataError, match="validation score"):
        select(root, ranked_by("instance.pq"), fingerprint, root / "shards")


def test_a_comparison_is_by_the_same_score_and_tells_of_objects(root: Path) -> None:
    sharp, whole = scores_of(root, "sharp"), scores_of(root, "whole")
    wanted = QUICK.model_copy(update={"rank_by": "instance.f1_50"})
    result = compare_models(sharp, whole, wanted)
    assert (result.metric, result.verdict) == ("instance.f1_50", "better")
    assert result.found == compare_on("instance.f1_50", whole, sharp, wanted)
    assert result.scores is not None
    assert "panoptic quality" in [row.name for _, rows in result.scores.groups for row in rows]
    bare = replace(sharp, objects=None, object_iou=None, detections=None)
    by_pixels = compare_models(bare, whole, wanted)
    assert (by_pixels.metric, by_pixels.verdict) == ("iou.dataset.macro", "worse")


def test_of_many_detections_fewer_resamples_are_drawn(root: Path) -> None:
    of = scores_of(root, "whole").statistic("instance.ap")
    assert of.most_resamples is not None and of.most_resamples > 10_000
    many = replace(of, pools=of.pools * 2000)  # type: ignore[type-var, attr-defined]
    assert many.most_resamples == 1000
    assert scores_of(root, "whole").statistic("instance.pq").most_resamples is None


def test_pictures_of_where_two_models_part_follow_the_score_that_ranks(root: Path) -> None:
    sides = [ScoredModel(name, scores_of(root, name), told_apart(name)) for name in ("sharp", "whole")]
    reader = ShardReader(root / "shards", "test")
    found = draw_disagreements(sides[0], sides[1], reader, 1, "instance.f1_50")
    values = [side.scores.of_images("instance.f1_50") for side in sides]
    behind = int(np.argmin(values[0] - values[1]))
    assert (found[0].key, found[0].kind) == (reader.keys[behind], "behind")
    assert found[0].note == f"F1 of objects at IoU 0.5: {values[0][behind]:.3f} · whole {values[1][behind]:.3f}"
    assert draw_disagreements(sides[0], sides[1], reader, 1)[0].note.startswith("IoU ")


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("evaluate: {rank_by: instance.f1_50}", "evaluate.rank_by", "import objects"),
        ("gates: {champion: {metric: instance.ap50}}", "gates.champion.metric", "the dataset has no objects"),
        ("gates: {class_floor: {ratio: instance.pq}}", "gates.class_floor.ratio", "the dataset has no objects"),
        ("gates: {floor: {metric: iou.dataset.macr}}", "gates.floor.metric", "did you mean `iou.dataset.macro`"),
    ],
)
def test_scores_that_a_dataset_has_not_are_refused_before_training(
    fingerprint: Fingerprint, text: str, where: str, words: str
) -> None:
    params = parse_params(f"candidates: {{unet: {{family: unet}}}}\n{text}")
    with pytest.raises(ConfigError, match=words) as error:
        check_scores(params, fingerprint)
    assert f"params.yaml: {where}" in str(error.value)
    if "instance" in text:
        check_scores(params, fingerprint.model_copy(update={"instances": True}))

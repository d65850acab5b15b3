"""Instance metrics in gates, rankings and comparisons."""

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
from tests.worlds.cells import cells
from tests.worlds.evaluated_workspace import CLASSES, Reading, make_segmenter
from tests.worlds.judged_scores import select

QUICK = EvaluateParams(gallery=0, resamples=300, surface=False)
NAMES = ["f1_50", "pq", "sq", "rq", "challenge", "ap", "ap50", "ap75"]


class Shaved(Reading):
    """An engine that misses the upper rows of every instance."""

    def __init__(self, rows: int) -> None:
        super().__init__(0.0)
        self.rows = rows

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        above = np.pad(batch, ((0, 0), (0, 0), (self.rows, 0), (0, 0)), mode="edge")[:, :, : batch.shape[2]]
        return super().__call__(np.minimum(batch, above))


def instance_segmenter(candidate: str) -> Segmenter:
    """Return a model: `sharp` loses only the small instances, `whole` a row of pixels of each instance, `kmeans` three."""
    rows, min_size = {"sharp": (0, 60), "whole": (1, 3), "kmeans": (3, 3)}[candidate]
    spec = make_segmenter(0.0, candidate).spec
    return Segmenter(
        spec.model_copy(update={"postprocess": Postprocess(method="components", min_size=min_size)}), Shaved(rows)
    )


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [cells(i, ignored=True) for i in range(12)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, samples: list[Sample]) -> Path:
    """A workspace in which `sharp` has the better pixel scores and `whole` the better instance scores."""
    root = tmp_path_factory.mktemp("instance")
    for split in ("test", "val"):
        write_shards(root / "shards", split, samples, len(CLASSES))
    reader, val = (ShardReader(root / "shards", split) for split in ("test", "val"))
    for name, score in (("sharp", 0.9), ("whole", 0.8), ("kmeans", None)):
        segmenter = instance_segmenter(name)
        facts = CandidateFacts(ranking_score=measure_ranking_score(segmenter, val, "instance.f1_50"))
        params = QUICK.model_copy(update={"rank_by": "instance.f1_50"})
        evaluate_candidate(segmenter, reader, root / "evaluation" / name, params, name, score, facts)
    (root / "champion.json").write_text(json.dumps({"version": None}))
    return root


def scores_of(root: Path, name: str) -> Scores:
    return read_scores(root / "evaluation" / name / "per_image.parquet")


def test_every_score_is_the_one_in_metrics_json(root: Path) -> None:
    scores = scores_of(root, "whole")
    written = json.loads((root / "evaluation/whole/metrics.json").read_text())["test"]["instance"]
    for name in NAMES:
        assert scores.value(f"instance.{name}") == pytest.approx(written[name], abs=1e-6), name
    for label in CLASSES.names[1:]:
        for name, value in written["class"][label].items():
            if name in NAMES:
                assert scores.value(f"instance.class.{label}.{name}") == pytest.approx(value, abs=1e-6), (label, name)
    interval = interval_of("instance.f1_50", scores, QUICK)
    assert written["interval"]["f1_50"] == {"low": round(interval.low, 6), "high": round(interval.high, 6)}


def test_each_image_alone(root: Path, samples: list[Sample]) -> None:
    scores, segmenter = scores_of(root, "whole"), instance_segmenter("whole")
    expected: dict[str, list[float]] = {name: [] for name in ("pq", "f1_50", "challenge", "ap")}
    for sample in samples:
        predicted = segmenter.predict(sample.image, instances=True).instances
        assert predicted is not None and sample.labels is not None
        pair, ignored = (
            [InstanceMasks.from_instances(o) for o in (sample.true_instances(), predicted)],
            sample.labels == IGNORE,
        )
        score = count_instances(*pair, len(CLASSES), ignored)
        hits, truth, claimed = score.tallies[0].sum(-1)
        counter = AveragePrecisionCounter(len(CLASSES))
        counter.add(*pair, ignored)
        expected["pq"].append(float(np.nanmean(panoptic_quality(score).pq)))
        expected["f1_50"].append(2 * hits / (truth + claimed))
        expected["challenge"].append(challenge_score(score))
        expected["ap"].append(counter.result().ap)
    for name, values in expected.items():
        np.testing.assert_allclose(scores.image_scores(f"instance.{name}"), values, atol=1e-12)


def test_resamples_are_those_of_the_resampled_images(root: Path) -> None:
    scores = scores_of(root, "whole")
    rng = np.random.default_rng(0)
    assert scores.detections is not None
    detections = [replace(one, scores=np.sort(rng.random(len(one)))[::-1]) for one in scores.detections]
    scores = replace(scores, detections=detections)  # without ties, which repeated images would break differently
    drawn = np.sort(rng.integers(0, 12, (6, 12)), axis=1)
    weights = np.stack([np.bincount(row, minlength=12) for row in drawn]).astype(float)
    for name in NAMES:
        expected = [scores.at(row).value(f"instance.{name}") for row in drawn]
        np.testing.assert_allclose(scores.statistic(f"instance.{name}", by_image=True)(weights), expected, err_msg=name)
    assert scores.instances is not None and scores.instance_iou is not None
    score = InstanceCounts(scores.instances[drawn[0]].sum(0), scores.instance_iou[drawn[0]].sum(0))
    assert scores.at(drawn[0]).value("instance.pq") == pytest.approx(np.nanmean(panoptic_quality(score).pq))


@pytest.mark.parametrize("name", ["instance.ap50", "instance.pq"])
def test_exchanged_models_have_each_others_counts(root: Path, name: str) -> None:
    ours, theirs = scores_of(root, "sharp"), scores_of(root, "whole")
    swapped = np.random.default_rng(1).integers(0, 2, (5, 12)).astype(float)
    first, second = ours.statistic(name, by_image=True).exchanged(theirs.statistic(name, by_image=True), swapped)
    for row, one, other in zip(swapped > 0, first, second, strict=True):
        for selected, value in ((~row, one), (row, other)):
            assert mixed(ours, theirs, selected).value(name) == pytest.approx(value)
    same = ours.statistic(name)
    assert permutation_test(same, same, 50) == 1


def mixed(ours: Scores, theirs: Scores, selected: np.ndarray) -> Scores:
    """Return the counts of one model on some images, and of the other model on the rest."""
    assert ours.detections is not None and theirs.detections is not None
    detections = [(a if k else b) for a, b, k in zip(ours.detections, theirs.detections, selected, strict=True)]
    return replace(
        ours,
        detections=detections,
        instances=np.where(selected[:, None, None, None], ours.instances, theirs.instances),
        instance_iou=np.where(selected[:, None], ours.instance_iou, theirs.instance_iou),
    )


def gate(case: Case, text: str) -> GateVerdict:
    off = {"floor", "baseline", "champion", "test_size"} - {text.split(":")[0]}
    gates = parse_params(f"candidates: {{unet: {{family: unet}}}}\ngates: {{{text}}}").gates
    (verdict,) = judge(gates.model_copy(update=dict.fromkeys(off)), case)
    return verdict


def test_gates_judge_instances(root: Path) -> None:
    sharp, whole, kmeans = (scores_of(root, name) for name in ("sharp", "whole", "kmeans"))
    assert sharp.value("iou.dataset.macro") > whole.value("iou.dataset.macro")
    case = Case(QUICK, sharp, kmeans, Champion("v0.1.0", whole))
    assert gate(case, "champion: {margin: 0.02}").verdict == "pass", "its pixel scores are better"
    for name in ("f1_50", "pq", "ap50"):
        failed = gate(case, f"champion: {{metric: instance.{name}, margin: 0.02}}")
        assert failed.verdict == "fail" and describe_metric(f"instance.{name}") in failed.sentence and failed.worst
        assert failed.p_value is not None and failed.p_value < 0.05
        reverse = gate(
            Case(QUICK, whole, None, Champion("v0.1.0", sharp)),
            f"champion: {{metric: instance.{name}, superior: true}}",
        )
        assert reverse.verdict == "pass", reverse.sentence
    sliced = gate(case, "slice: {metric: instance.f1_50, least_images: 3}")
    assert sliced.verdict != "pass" and "F1 of instances at IoU 0.5" in sliced.sentence
    assert gate(case, "baseline: {metric: instance.ap}").metric == "instance.ap"
    value = whole.value("instance.ap50")
    assert value is not None
    on_whole = Case(QUICK, whole)
    assert gate(on_whole, f"floor: {{metric: instance.ap50, at_least: {value + 1e-4}}}").verdict == "fail"
    low = interval_of("instance.ap50", whole, QUICK).low
    assert gate(on_whole, f"floor: {{metric: instance.ap50, at_least: {low - 1e-6}}}").verdict == "pass"


def test_class_floors_of_instances_leave_out_classes_without_any(root: Path) -> None:
    case = Case(QUICK, scores_of(root, "whole"))
    verdict = gate(case, "class_floor: {ratio: instance.f1_50, at_least: 0.05}")
    assert {part.name for part in verdict.parts} == {"cell", "nucleus"} and verdict.verdict == "pass"
    assert "F1 of instances at IoU 0.5 of class" in verdict.sentence
    for part in verdict.parts:
        assert part.estimate == pytest.approx(case.winner.value(f"instance.class.{part.name}.f1_50"))


def test_a_champion_without_instances_cannot_be_compared(root: Path) -> None:
    whole = scores_of(root, "whole")
    bare = replace(whole, instances=None, instance_iou=None, detections=None)
    verdict = gate(Case(QUICK, whole, None, Champion("v0.1.0", bare)), "champion: {metric: instance.pq}")
    assert verdict.verdict == "cannot tell" and "does not separate instances" in verdict.sentence


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("instance.f1", "did you mean `instance.f1_50`"),
        ("instance.class.cell.f1_5", "did you mean `instance.class.cell.f1_50`"),
        ("instance.class.lake.pq", "no such class"),
        ("instance.xyz", "the instance metrics are f1_50"),
    ],
)
def test_unknown_scores_are_errors_with_the_fix(root: Path, name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        interval_of(name, scores_of(root, "whole"), QUICK)


def test_a_gate_on_missing_instances_is_a_config_error(root: Path) -> None:
    bare = replace(scores_of(root, "whole"), instances=None, instance_iou=None, detections=None)
    with pytest.raises(ConfigError) as error:
        gate(Case(QUICK, bare), "champion: {metric: instance.ap50}")
    assert "import instances" in str(error.value) and "instance.ap50" in str(error.value)
    old = replace(scores_of(root, "whole"), detections=None)
    assert gate(Case(QUICK, old), "floor: {metric: instance.pq, at_least: 0.01}").verdict == "pass"
    with pytest.raises(ConfigError, match="dvc repro -f evaluate@whole"):
        interval_of("instance.ap", old, QUICK)


def ranked_by(name: str) -> Params:
    return parse_params(
        "candidates: {sharp: {family: unet}, whole: {family: unet}, kmeans: {family: kmeans}}\n"
        f"evaluate: {{rank_by: {name}, resamples: 300}}"
    )


def test_the_winner_is_the_best_by_the_ranking_metric(root: Path, fingerprint: Fingerprint) -> None:
    by_pixels = select(root, ranked_by("iou.dataset.macro"), fingerprint, root / "shards")
    assert by_pixels.winner == "sharp" and by_pixels.metric == "iou.dataset.macro"
    by_objects = select(root, ranked_by("instance.f1_50"), fingerprint, root / "shards")
    assert by_objects.winner == "whole" and "by F1 of instances at IoU 0.5" in by_objects.summary
    first = by_objects.ranking[0]
    scores = scores_of(root, "whole")
    assert first.val == pytest.approx(scores.value("instance.f1_50"), abs=1e-6), "val has the same images here"
    assert next(iter(first.test)) == "instance.f1_50" == by_objects.metric
    assert first.interval is not None and first.interval.low == interval_of("instance.f1_50", scores, QUICK).low
    with pytest.raises(DataError, match="validation score"):
        select(root, ranked_by("instance.pq"), fingerprint, root / "shards")


def test_a_comparison_uses_the_ranking_metric_and_shows_instance_scores(root: Path) -> None:
    sharp, whole = scores_of(root, "sharp"), scores_of(root, "whole")
    params = QUICK.model_copy(update={"rank_by": "instance.f1_50"})
    result = compare_models(sharp, whole, params)
    assert (result.metric, result.verdict) == ("instance.f1_50", "better")
    assert result.comparison == compare_on("instance.f1_50", whole, sharp, params)
    assert result.scores is not None
    assert "panoptic quality" in [row.name for _, rows in result.scores.groups for row in rows]
    bare = replace(sharp, instances=None, instance_iou=None, detections=None)
    by_pixels = compare_models(bare, whole, params)
    assert (by_pixels.metric, by_pixels.verdict) == ("iou.dataset.macro", "worse")


def test_fewer_resamples_are_drawn_of_many_detections(root: Path) -> None:
    average_precision = scores_of(root, "whole").statistic("instance.ap")
    assert average_precision.max_resamples is not None and average_precision.max_resamples > 10_000
    many = replace(average_precision, pools=average_precision.pools * 2000)
    assert many.max_resamples == 1000
    assert scores_of(root, "whole").statistic("instance.pq").max_resamples is None


def test_pictures_of_disagreement_follow_the_ranking_metric(root: Path) -> None:
    sides = [ScoredModel(name, scores_of(root, name), instance_segmenter(name)) for name in ("sharp", "whole")]
    reader = ShardReader(root / "shards", "test")
    pictures = draw_disagreements(sides[0], sides[1], reader, 1, "instance.f1_50")
    values = [side.scores.image_scores("instance.f1_50") for side in sides]
    behind = int(np.argmin(values[0] - values[1]))
    assert (pictures[0].key, pictures[0].kind) == (reader.keys[behind], "behind")
    assert pictures[0].note == f"F1 of instances at IoU 0.5: {values[0][behind]:.3f} · whole {values[1][behind]:.3f}"
    assert draw_disagreements(sides[0], sides[1], reader, 1)[0].note.startswith("IoU ")


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("evaluate: {rank_by: instance.f1_50}", "evaluate.rank_by", "import instances"),
        ("gates: {champion: {metric: instance.ap50}}", "gates.champion.metric", "the dataset has no instances"),
        ("gates: {class_floor: {ratio: instance.pq}}", "gates.class_floor.ratio", "the dataset has no instances"),
        ("gates: {floor: {metric: iou.dataset.macr}}", "gates.floor.metric", "did you mean `iou.dataset.macro`"),
    ],
)
def test_metrics_that_a_dataset_does_not_have_are_refused_before_training(
    fingerprint: Fingerprint, text: str, where: str, words: str
) -> None:
    params = parse_params(f"candidates: {{unet: {{family: unet}}}}\n{text}")
    with pytest.raises(ConfigError, match=words) as error:
        check_scores(params, fingerprint)
    assert f"params.yaml: {where}" in str(error.value)
    if "instance" in text:
        check_scores(params, fingerprint.model_copy(update={"instances": True}))

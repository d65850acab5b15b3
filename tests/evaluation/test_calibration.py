"""Calibration errors with intervals against an independent count, and temperatures against what the confidences were spoilt by."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from segpipe.config import CalibrationGate, EvaluateParams, GateParams
from segpipe.data.shards import ShardReader, write_shards
from segpipe.evaluation.calibration import (
    ImageCalibration,
    calibration_interval,
    fit_temperature_on,
    image_reliability,
    summed_reliability,
)
from segpipe.evaluation.evaluate import evaluate_candidate
from segpipe.evaluation.scores import ImageScore, Scores
from segpipe.evaluation.scores_file import read_scores
from segpipe.evaluation.scoring import score_images
from segpipe.evaluation.statistics import bootstrap
from segpipe.gates.case import Case
from segpipe.gates.judge import judge
from segpipe.gates.verdicts import GateVerdict
from segpipe.inference.engines.engine import softmax
from segpipe.inference.postprocess import Postprocess
from segpipe.inference.preprocess import Normalisation
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.metrics.calibration import BINS, reliability
from segpipe.samples import IGNORE, ClassTable, Sample
from tests.worlds.evaluated_workspace import make_segmenter

QUICK = EvaluateParams(resamples=400, gallery=1)
NAMES = ["background", "cell"]


def plain_error(truth: np.ndarray, said: np.ndarray) -> float:
    """ECE pixel by pixel."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for t, column in zip(truth, said.T, strict=True):
        sure = float(column.max())
        place = min(max(int(np.ceil(sure * BINS)) - 1, 0), BINS - 1)
        bins.setdefault(place, []).append((sure, int(column.argmax()) == t))
    n = sum(map(len, bins.values()))
    return sum(abs(sum(s for s, _ in rows) - sum(h for _, h in rows)) for rows in bins.values()) / n


def sure_of(images: int, confidence: float, right: float, pixels: int = 400, seed: int = 0) -> Scores:
    """A model that is this confident everywhere, and right on about this share of each image."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(images):
        truth = (rng.random(pixels) > np.clip(right + 0.05 * rng.normal(), 0, 1)).astype(np.uint8)
        said = np.tile(np.array([[confidence], [1 - confidence]], np.float32), pixels)
        hits = int((truth == 0).sum())
        counts = np.array([[hits, 0], [pixels - hits, 0]])
        rows.append(ImageScore(f"i{i}", None, 20, 20, counts, reliability=image_reliability(truth, said)))
    return Scores.collect("unet", NAMES, {}, rows)


def test_the_error_of_many_images_is_that_of_all_their_pixels() -> None:
    rng = np.random.default_rng(1)
    truths = [rng.choice(np.array([0, 1, 2, IGNORE], np.uint8), 50 + 10 * i) for i in range(8)]
    saids = [softmax(2 * rng.normal(size=(3, t.size)).astype(np.float32)) for t in truths]
    rows = [
        ImageScore(f"i{i}", f"g{i}", 1, 1, np.eye(3, dtype=int), reliability=image_reliability(t, p))
        for i, (t, p) in enumerate(zip(truths, saids, strict=True))
    ]
    scores = Scores.collect("m", ["a", "b", "c"], {}, rows)
    truth, said = np.concatenate(truths), np.concatenate(saids, 1)
    kept = truth != IGNORE
    found = calibration_interval(scores, QUICK)
    assert found.estimate == pytest.approx(plain_error(truth[kept], said[:, kept]), abs=1e-5)
    assert found.units == 8
    total = summed_reliability(scores)
    assert total.expected_error()[0] == pytest.approx(found.estimate)
    np.testing.assert_array_equal(total.count, reliability(truth, said).count)

    def slowly(weights: np.ndarray) -> np.ndarray:
        """The same statistic, drawing images one by one."""
        out = []
        for times in weights:
            drawn = [i for i, n in enumerate(times) for _ in range(int(n))]
            t, p = (np.concatenate([a[i] for i in drawn], -1) for a in (truths, saids))
            out.append(reliability(t, p).expected_error()[0])
        return np.array(out)

    again = bootstrap(slowly, 8, 400, 0.95)
    assert (found.low, found.high) == pytest.approx((again.low, again.high), abs=1e-4)


def gate(scores: Scores, at_most: float) -> GateVerdict:
    settings = GateParams(
        floor=None, baseline=None, champion=None, test_size=None, calibration=CalibrationGate(at_most=at_most)
    )
    return judge(settings, Case(QUICK, scores))[0]


def test_the_calibration_gate_judges_the_upper_bound() -> None:
    scores = sure_of(40, 0.9, 0.8)
    found = gate(scores, 0.2)
    assert found.verdict == "pass" and found.estimate == pytest.approx(0.1, abs=0.02)
    assert found.estimate < found.high <= 0.2 and found.side == "most"
    assert f"at most {found.high:.3f} with 97.5 % confidence, within the limit of 0.200" in found.sentence
    late = gate(scores, 0.05)
    assert late.verdict == "fail" and "above the limit of 0.050; worst on " in late.sentence and len(late.worst) == 3
    shares = scores.tally[:, 0].sum(1) / 400
    assert late.worst[0] == scores.keys[int(np.argmax(np.abs(0.9 - shares)))]
    unsure = gate(sure_of(6, 0.9, 0.85), gate(sure_of(6, 0.9, 0.85), 0.5).estimate + 1e-4)
    assert unsure.verdict == "cannot tell" and "may be as high as" in unsure.sentence


def test_scores_keep_their_confidences(tmp_path: Path, reader: ShardReader) -> None:
    evaluate_candidate(make_segmenter(0.1), reader, tmp_path, QUICK, "unet")
    back = read_scores(tmp_path / "per_image.parquet")
    straight = Scores.collect("unet", back.classes, {}, score_images(make_segmenter(0.1), reader, "x"))
    np.testing.assert_array_equal(back.reliability, straight.reliability)
    assert back.traits == straight.traits
    pixels = back.reliability[:, 0].sum(1)
    np.testing.assert_array_equal(pixels, back.tally[:, 1].sum(1))
    told = json.loads((tmp_path / "metrics.json").read_text())["test"]["calibration"]
    assert told["ece"] == round(calibration_interval(back, QUICK).estimate, 6)
    assert sum(row["pixels"] for row in told["curve"]) == pixels.sum()
    order = np.random.default_rng(0).permutation(20)
    other = Scores.collect(
        "b", back.classes, {}, [list(score_images(make_segmenter(0.1), reader, "x"))[i] for i in order]
    )
    np.testing.assert_array_equal(back.aligned(other).reliability, back.reliability)
    assert back.aligned(other).traits == back.traits


def test_an_image_that_is_too_large_for_probabilities_is_left_out(
    reader: ShardReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Scores.collect("a", ["a", "b", "c"], {}, score_images(make_segmenter(0.1), reader, "x"))
    monkeypatch.setattr("segpipe.evaluation.calibration.MAX_PROBABILITIES", 100)
    none = Scores.collect("a", ["a", "b", "c"], {}, score_images(make_segmenter(0.1), reader, "x"))
    assert none.reliability is None and calibration_interval(none, QUICK) is None
    np.testing.assert_array_equal(none.tally, whole.tally)


class Sharp:
    """An engine whose logits are the image's, `times` as sure as they should be."""

    name = "sharp"

    def __init__(self, times: float) -> None:
        self.times = times

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        return np.concatenate([np.zeros_like(batch), batch * self.times], 1).astype(np.float32)


@pytest.mark.parametrize("times", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_what_confidences_were_spoilt_by(tmp_path: Path, times: float) -> None:
    rng = np.random.default_rng(3)
    samples = []
    for i in range(12):
        logit = rng.normal(0, 2, (40, 40)).astype(np.float32)
        labels = (rng.random((40, 40)) < 1 / (1 + np.exp(-logit))).astype(np.uint8)
        samples.append(Sample(f"v{i}", logit[:, :, None], labels))
    write_shards(tmp_path, "val", samples, 2)
    plain = Normalisation(low=(-1e9,), high=(1e9,), mean=(0,), std=(1,))
    spec = SegmenterSpec(
        candidate="s", family="unet", classes=ClassTable.from_names(NAMES), normalisation=plain, stride=1
    )

    class Raw(Segmenter):
        def predict(
            self, image: np.ndarray, probabilities: bool = False, spacing: object = None, instances: bool = False
        ) -> object:
            from segpipe.samples import Prediction

            scores = self.engine(image.transpose(2, 0, 1)[None])[0]
            return Prediction(scores.argmax(0).astype(np.uint8), softmax(scores))

    assert fit_temperature_on(Raw(spec, Sharp(times)), ShardReader(tmp_path, "val")) == pytest.approx(times, rel=0.1)
    blank = [Sample("b", samples[0].image, np.full((40, 40), IGNORE, np.uint8))]
    write_shards(tmp_path / "blank", "val", blank, 2)
    assert fit_temperature_on(Raw(spec, Sharp(1)), ShardReader(tmp_path / "blank", "val")) is None


def spoilt_split(folder: Path, split: str, first: int) -> None:
    """Images whose value is a logit, and labels drawn by it."""
    rng = np.random.default_rng(first)
    samples = []
    for i in range(10):
        logit = rng.normal(0, 2, (40, 40)).astype(np.float32)
        labels = (rng.random((40, 40)) < 1 / (1 + np.exp(-logit))).astype(np.uint8)
        samples.append(Sample(f"{split}{i}", logit[:, :, None], labels))
    write_shards(folder, split, samples, 2)


def test_what_ships_is_calibrated_and_says_the_same_classes(tmp_path: Path) -> None:
    """A model three times too sure: the temperature of val mends its confidences on test, and moves no class."""
    spoilt_split(tmp_path, "val", 1)
    spoilt_split(tmp_path, "test", 2)
    plain = Normalisation(low=(0,), high=(1,), mean=(0,), std=(1,))
    spec = SegmenterSpec(
        candidate="s", family="unet", classes=ClassTable.from_names(NAMES), normalisation=plain, stride=1
    )
    raw, reader = Segmenter(spec, Sharp(3.0)), ShardReader(tmp_path, "test")
    temperature = fit_temperature_on(raw, ShardReader(tmp_path, "val"))
    shipped = raw.at_temperature(temperature)
    assert temperature == pytest.approx(3, rel=0.1) and raw.spec.temperature == 1
    image = reader[0].image
    for segmenter in (shipped, Segmenter(shipped.spec.model_copy(update={"tile": 32, "overlap": 16}), Sharp(3.0))):
        one, other = (s.predict(image, probabilities=True) for s in (segmenter, raw))
        np.testing.assert_array_equal(one.class_ids, other.class_ids)
        np.testing.assert_array_equal(one.class_ids, segmenter.predict(image).class_ids)
        np.testing.assert_allclose(
            one.probabilities, softmax(Sharp(3.0)(image.transpose(2, 0, 1)[None])[0] / temperature), atol=1e-4
        )
    told = {}
    for name, segmenter in (("raw", raw), ("shipped", shipped)):
        evaluate_candidate(segmenter, reader, tmp_path / name, QUICK, name)
        told[name] = json.loads((tmp_path / name / "metrics.json").read_text())["test"]
    assert told["raw"]["iou"] == told["shipped"]["iou"]
    before, after = told["raw"]["calibration"], told["shipped"]["calibration"]
    assert before["ece"] > 0.1 and after["ece"] < 0.02
    assert after["thinned"]["before"]["ece"] == pytest.approx(before["ece"], abs=1e-4), "these images are not thinned"
    assert after["thinned"]["shipped"]["ece"] == pytest.approx(after["ece"], abs=1e-5)
    assert before["thinned"]["before"] == before["thinned"]["shipped"]
    gates = GateParams(
        floor=None, baseline=None, champion=None, test_size=None, calibration=CalibrationGate(at_most=0.05)
    )
    for name, verdict in (("raw", "fail"), ("shipped", "pass")):
        found = judge(gates, Case(QUICK, read_scores(tmp_path / name / "per_image.parquet")))[0]
        assert found.verdict == verdict, "the gate judges what ships"


def test_every_class_has_an_error_of_its_own(tmp_path: Path, reader: ShardReader) -> None:
    """Against the class's probability and share, pixel by pixel and bin by bin."""
    segmenter = make_segmenter(0.1).at_temperature(1.7)
    evaluate_candidate(segmenter, reader, tmp_path, QUICK, "unet")
    told = json.loads((tmp_path / "metrics.json").read_text())["test"]["calibration"]["class"]
    kept = [s.labels != IGNORE for s in reader]
    truth = np.concatenate([s.labels[k] for s, k in zip(reader, kept, strict=True)])
    said = np.concatenate(
        [segmenter.predict(s.image, probabilities=True).probabilities[:, k] for s, k in zip(reader, kept, strict=True)],
        1,
    )
    for index, name in enumerate(segmenter.spec.classes.names):
        place = np.clip(np.ceil(said[index].astype(float) * BINS).astype(int) - 1, 0, BINS - 1)
        gaps = [abs((said[index] - (truth == index))[place == b].sum()) for b in range(BINS)]
        assert told[name] == pytest.approx(sum(gaps) / truth.size, abs=1e-5)


def test_large_images_are_thinned_evenly() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (700, 900), np.uint8)
    said = softmax(rng.normal(size=(2, 700, 900)).astype(np.float32))
    seen = ImageCalibration.of(truth, said, 1.0)
    assert seen.shipped.count.sum() == 175 * 225, "every fourth pixel each way"
    assert seen.shipped.expected_error() == pytest.approx(reliability(truth, said).expected_error(), abs=0.01)
    volume = ImageCalibration.of(truth.reshape(7, 100, 900), said.reshape(2, 7, 100, 900), 1.0)
    assert 1 << 14 < volume.shipped.count.sum() <= 1 << 16


def test_the_temperature_moves_no_object() -> None:
    """Which objects are kept was chosen by their scores before it."""
    plain = Normalisation(low=(0,), high=(1,), mean=(0,), std=(1,))
    spec = SegmenterSpec(
        candidate="s",
        family="unet",
        classes=ClassTable.from_names(NAMES),
        normalisation=plain,
        stride=1,
        postprocess=Postprocess(method="components", min_size=1, min_score=0.7),
    )
    logits = np.full((20, 20, 1), -2.0, np.float32)
    logits[2:6, 2:6], logits[10:14, 10:14] = 1.5, 0.5  # probabilities of 0.82 and 0.62
    raw = Segmenter(spec, Sharp(1.0))
    warm = raw.at_temperature(4.0)
    one, other = (s.predict(logits, probabilities=True, instances=True) for s in (raw, warm))
    assert len(one.instances) == len(other.instances) == 1
    np.testing.assert_array_equal(one.instances.ids, other.instances.ids)
    np.testing.assert_array_equal(one.class_ids, other.class_ids)
    assert other.probabilities.max() < one.probabilities.max()

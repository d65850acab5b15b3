"""Tests of verdicts: each outcome of each gate, in numbers and in words."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segpipe.config import BaselineGate, ChampionGate, EvaluateParams, FloorGate, GateParams
from segpipe.errors import ConfigError, DataError
from segpipe.evaluation.metric_lookup import compare_on, describe_metric
from segpipe.evaluation.scores import ImageScore, Scores
from segpipe.evaluation.statistics import Interval
from segpipe.gates.case import Case, Champion
from segpipe.gates.judge import judge
from segpipe.gates.verdict_building import verdict_above
from segpipe.gates.verdicts import GateVerdict
from tests.worlds.property_tests import examples

QUICK = EvaluateParams(resamples=400)
NAMES = ["background", "cell"]


def scored(name: str, accuracy: float, images: int = 40, spread: float = 0.05, seed: int = 0) -> Scores:
    """Return scores of a model that is right on about this fraction of the pixels of each class."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(images):
        hits = int(1000 * np.clip(accuracy + spread * rng.normal(), 0, 1))
        rows.append(ImageScore(f"i{i}", None, 40, 50, np.array([[hits, 1000 - hits], [1000 - hits, hits]])))
    return Scores.collect(name, NAMES, {}, rows)


def one(
    gate: str, winner: Scores, baseline: Scores | None = None, champion: Champion | None = None, **settings: object
) -> GateVerdict:
    types = {"floor": FloorGate, "baseline": BaselineGate, "champion": ChampionGate}
    chosen = {name: types[name](**settings) if name == gate else None for name in types}
    (verdict,) = judge(GateParams(**chosen, test_size=None), Case(QUICK, winner, baseline, champion))
    assert verdict.name == gate
    return verdict


def test_floor_pass_has_the_bound() -> None:
    verdict = one("floor", scored("unet", 0.9), at_least=0.3)
    assert verdict.verdict == "pass"
    assert verdict.sentence == (
        f"Pass: unet's test IoU (macro, dataset) is {verdict.estimate:.3f}, at least {verdict.low:.3f} with 97.5 % confidence, "
        "above the floor of 0.300."
    )
    assert (
        verdict.threshold == 0.3 and verdict.confidence == 0.975 and 0.3 < verdict.low < verdict.estimate < verdict.high
    )


def test_floor_fail_names_the_worst_images() -> None:
    winner = scored("unet", 0.5)
    verdict = one("floor", winner, at_least=0.6)
    each = winner.image_scores("iou.dataset.macro")
    assert verdict.verdict == "fail"
    assert verdict.worst == [winner.keys[i] for i in np.argsort(each, kind="stable")[:3]]
    assert f"below the floor of 0.600; worst on {', '.join(verdict.worst)}." in verdict.sentence


def test_a_floor_inside_the_interval_cannot_tell() -> None:
    winner = scored("unet", 0.8, images=6, spread=0.2)
    verdict = one("floor", winner, at_least=winner.value("iou.dataset.macro") - 0.01)
    assert verdict.verdict == "cannot tell"
    assert verdict.sentence.startswith("Cannot tell: unet's") and "it may be as low as" in verdict.sentence


def test_close_numbers_get_more_digits() -> None:
    winner = scored("unet", 0.8)
    verdict = one("floor", winner, at_least=winner.value("iou.dataset.macro") + 1e-5)
    value, floor = verdict.sentence.split(" is ")[1].split(", below the floor of ")
    assert value != floor.split(";")[0]


def test_baseline_must_be_beaten() -> None:
    good, poor = scored("unet", 0.9), scored("kmeans", 0.6, seed=1)
    verdict = one("baseline", good, poor)
    assert verdict.verdict == "pass" and verdict.low > 0
    assert (
        "above the baseline kmeans (" in verdict.sentence
        and "with 97.5 % confidence it is at least" in verdict.sentence
    )
    assert one("baseline", poor, good).verdict == "fail"
    assert one("baseline", good, good).verdict == "fail", "being as good as the baseline is not beating it"
    assert one("baseline", good, poor, margin=0.9).verdict == "fail"
    chance = one("baseline", scored("unet", 0.81, 5, 0.2), scored("kmeans", 0.8, 5, 0.2, seed=7))
    assert chance.verdict == ("cannot tell" if chance.estimate > 0 else "fail")


def test_cannot_tell_has_the_detectable_difference() -> None:
    """On twelve images with noise as large as the lead, the verdict names the difference that they can detect."""
    winner, other = scored("unet", 0.82, 12, 0.1), scored("v1", 0.8, 12, 0.1, seed=7)
    verdict = one("champion", winner, champion=Champion("v0.2.0", other), margin=0.0)
    assert verdict.verdict == "cannot tell" and verdict.p_value > 0.05
    assert verdict.detectable > abs(verdict.estimate)
    assert (
        f"12 images or groups, enough to detect a difference of {verdict.detectable:.3f} four times out of five"
        in verdict.sentence
    )
    clear = one("champion", scored("unet", 0.9), champion=Champion("v0.2.0", scored("v1", 0.6)))
    assert clear.p_value < 0.01 and clear.detectable < clear.estimate
    assert one("floor", winner).p_value is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("iou.dataset.macro", "IoU (macro, dataset)"),
        ("dice.class.cell", "Dice of class cell"),
        ("dice.image.class.cell", "Dice of class cell (image)"),
        ("dice.image.class_empty1.cell", "Dice of class cell (image, absence counts 1)"),
        ("iou.image.macro_empty1", "IoU (macro, absence counts 1, image)"),
        ("mcc.dataset.multiclass", "Matthews correlation (multiclass, dataset)"),
        ("accuracy.pixel", "pixel accuracy"),
    ],
)
def test_metrics_in_words(name: str, words: str) -> None:
    assert describe_metric(name) == words


def test_no_baseline_cannot_tell_and_names_the_fix() -> None:
    verdict = one("baseline", scored("unet", 0.9))
    assert verdict.verdict == "cannot tell" and "gates.baseline: null" in verdict.sentence


def test_the_winner_must_not_be_worse_than_the_champion() -> None:
    winner, other = scored("unet", 0.85), scored("v1", 0.86)
    near = one("champion", winner, champion=Champion("v0.2.0", other), margin=0.05)
    assert near.verdict == "pass" and near.estimate < 0
    assert "below the champion v0.2.0 (" in near.sentence and "0.050 below is allowed" in near.sentence
    verdict = one("champion", winner, champion=Champion("v0.2.0", other), margin=0.001)
    assert verdict.verdict == "fail" and len(verdict.worst) == 3


def test_the_same_model_is_not_worse_than_itself() -> None:
    winner = scored("unet", 0.85)
    verdict = one("champion", winner, champion=Champion("v0.2.0", winner, same_model=True), margin=0)
    assert (
        verdict.verdict == "pass"
        and "equal to the champion v0.2.0" in verdict.sentence
        and "the same model, trained again" in verdict.sentence
        and verdict.worst == []
    )


def test_no_champion_passes_and_one_that_cannot_be_scored_does_not() -> None:
    winner = scored("unet", 0.85)
    assert one("champion", winner).sentence == "Pass: no champion yet."
    verdict = one("champion", winner, champion=Champion("v0.2.0", None, "its classes are a, b, the data's a, c"))
    assert verdict.verdict == "cannot tell" and "its classes are a, b" in verdict.sentence


def test_a_paired_gate_requires_the_same_images() -> None:
    with pytest.raises(DataError, match="different images"):
        one("baseline", scored("unet", 0.9, 10), scored("kmeans", 0.5, 11))


def test_models_are_paired_by_key_not_by_position() -> None:
    winner, other = scored("unet", 0.8, spread=0.3), scored("v1", 0.8, spread=0.3)
    order = np.random.default_rng(0).permutation(40)
    shuffled = dataclasses.replace(other, keys=[other.keys[i] for i in order], tally=other.tally[order])
    verdict = one("champion", winner, champion=Champion("v0.2.0", shuffled))
    assert (verdict.low, verdict.high) == (0, 0)


@pytest.mark.parametrize("gate", ["floor", "baseline", "champion"])
def test_an_unknown_metric_is_a_config_error(gate: str) -> None:
    with pytest.raises(ConfigError, match=r"did you mean `iou\.class\.cell`"):
        one(gate, scored("unet", 0.9), metric="iou.class.cells")


@pytest.mark.parametrize("gate", ["floor", "baseline", "champion"])
def test_an_undefined_score_cannot_tell(gate: str) -> None:
    winner = scored("unet", 0.9)
    undefined = dataclasses.replace(winner, tally=np.zeros_like(winner.tally))
    verdict = one(gate, undefined, undefined, Champion("v0.2.0", undefined), metric="iou.class.cell")
    assert verdict.verdict == "cannot tell" and verdict.estimate is None and verdict.low is None
    assert "nan" not in verdict.sentence and "nothing in the test images counts for it" in verdict.sentence


def test_a_single_image_cannot_tell() -> None:
    winner = scored("unet", 0.9, images=1)
    assert one("floor", winner).verdict == "cannot tell"
    assert "a single image gives no confidence bound" in one("floor", winner).sentence
    assert one("baseline", winner, scored("kmeans", 0.2, images=1)).verdict == "cannot tell"


def test_disabled_gates_give_no_verdict() -> None:
    off = GateParams(floor=None, baseline=None, champion=None, test_size=None)
    assert judge(off, Case(QUICK, scored("unet", 0.9))) == []


@examples(200)
@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1), st.floats(-1, 1), st.booleans())
def test_a_verdict_compares_the_interval_with_the_threshold(
    estimate: float, below: float, above: float, threshold: float, strict: bool
) -> None:
    interval = Interval(estimate, estimate - below, estimate + above, 0.95, 20)
    verdict = verdict_above(interval, threshold, strict)
    if verdict == "pass":
        assert interval.low >= threshold and (not strict or interval.low > threshold)
    elif verdict == "fail":
        assert estimate <= threshold
    else:
        assert interval.low <= threshold <= estimate


@pytest.mark.parametrize(("images", "expected"), [(5, "cannot tell"), (6, "pass")])
def test_better_needs_the_permutation_test_too(images: int, expected: str) -> None:
    """If all of five images are better, 1 of 16 permutations gives such a difference: too many, whatever the interval says."""
    worse, better = (scored(name, a, images, spread=0.01) for name, a in (("old", 0.7), ("unet", 0.8)))
    for verdict in (
        one("baseline", better, baseline=worse),
        one("champion", better, champion=Champion("v1", worse), superior=True),
    ):
        assert verdict.low > 0 and verdict.p_value == 2 / 2**images and verdict.verdict == expected
        clause = "but two equally good models would differ as much on 5 images or groups with probability 0.062"
        assert (clause in verdict.sentence) == (expected == "cannot tell")
    assert one("champion", better, champion=Champion("v1", worse)).verdict == "pass", (
        "the interval alone decides whether it is not worse"
    )
    assert one("baseline", better, baseline=worse, margin=-0.1).verdict == "pass"


def test_equally_good_models_differ_significantly_at_the_nominal_rate() -> None:
    """Images have very different sizes, so a few of them decide; predictions are swapped at random, so neither model is better."""
    rng = np.random.default_rng(3)
    size = np.exp(rng.normal(0, 1.2, 60)) * 2000
    answers = np.clip(0.8 + rng.normal(0, 0.08, (2, 60)), 0, 1)
    params, rounds, passed = EvaluateParams(resamples=300), 250, 0
    gates = GateParams(floor=None, baseline=None, test_size=None, champion=ChampionGate(superior=True))
    for _ in range(rounds):
        swap = rng.integers(0, 2, 60)
        hits = (np.take_along_axis(answers, np.stack([swap, 1 - swap]), 0) * size).astype(int)
        ours, theirs = (
            Scores.collect(
                "m",
                NAMES,
                {},
                [
                    ImageScore(f"i{i}", None, 9, 9, np.array([[h, n - h], [n - h, h]]))
                    for i, (h, n) in enumerate(zip(row, size.astype(int), strict=True))
                ],
            )
            for row in hits
        )
        passed += judge(gates, Case(params, ours, champion=Champion("v1", theirs)))[0].verdict == "pass"
    assert passed / rounds < 0.025 + 2.5 * np.sqrt(0.025 * 0.975 / rounds)


def test_not_worse_rests_on_the_conservative_bound() -> None:
    """No test confirms that a model is not worse, so the conservative bound decides; for better, interval and test must agree."""
    winner, other = scored("unet", 0.82, images=9), scored("old", 0.8, images=9, seed=1)
    comparison = compare_on("iou.dataset.macro", winner, other, QUICK)
    assert comparison.conservative.low < comparison.difference.low
    champion = Champion("v0.1.0", other)
    assert one("champion", winner, champion=champion).low == comparison.conservative.low
    assert one("champion", winner, champion=champion, superior=True).low == comparison.difference.low
    assert one("baseline", winner, baseline=other).low == comparison.difference.low
    between = -(comparison.conservative.low + comparison.difference.low) / 2
    assert one("champion", winner, champion=champion, margin=between).verdict == "cannot tell"

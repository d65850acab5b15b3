"""Verdicts: each outcome of each gate, in numbers and in words."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
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

QUICK = EvaluateParams(resamples=400)
NAMES = ["background", "cell"]


def scored(name: str, accuracy: float, images: int = 40, spread: float = 0.05, seed: int = 0) -> Scores:
    """A model that is right on about this share of the pixels of each class."""
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


def test_floor_pass_says_the_bound() -> None:
    found = one("floor", scored("unet", 0.9), at_least=0.3)
    assert found.verdict == "pass"
    assert found.sentence == (
        f"Pass: unet's test IoU (macro, dataset) is {found.estimate:.3f}, at least {found.low:.3f} with 97.5 % confidence, "
        "above the floor of 0.300."
    )
    assert found.threshold == 0.3 and found.confidence == 0.975 and 0.3 < found.low < found.estimate < found.high


def test_floor_fail_names_the_worst_images() -> None:
    winner = scored("unet", 0.5)
    found = one("floor", winner, at_least=0.6)
    each = winner.image_scores("iou.dataset.macro")
    assert found.verdict == "fail"
    assert found.worst == [winner.keys[i] for i in np.argsort(each, kind="stable")[:3]]
    assert f"below the floor of 0.600; worst on {', '.join(found.worst)}." in found.sentence


def test_floor_straddled_can_not_tell() -> None:
    winner = scored("unet", 0.8, images=6, spread=0.2)
    found = one("floor", winner, at_least=winner.value("iou.dataset.macro") - 0.01)
    assert found.verdict == "cannot tell"
    assert found.sentence.startswith("Cannot tell: unet's") and "it may be as low as" in found.sentence


def test_numbers_that_look_alike_get_more_digits() -> None:
    winner = scored("unet", 0.8)
    found = one("floor", winner, at_least=winner.value("iou.dataset.macro") + 1e-5)
    value, floor = found.sentence.split(" is ")[1].split(", below the floor of ")
    assert value != floor.split(";")[0]


def test_baseline_must_be_beaten() -> None:
    good, poor = scored("unet", 0.9), scored("kmeans", 0.6, seed=1)
    found = one("baseline", good, poor)
    assert found.verdict == "pass" and found.low > 0
    assert "above the baseline kmeans (" in found.sentence and "with 97.5 % confidence it is at least" in found.sentence
    assert one("baseline", poor, good).verdict == "fail"
    assert one("baseline", good, good).verdict == "fail", "being as good as the baseline is not beating it"
    assert one("baseline", good, poor, margin=0.9).verdict == "fail"
    luck = one("baseline", scored("unet", 0.81, 5, 0.2), scored("kmeans", 0.8, 5, 0.2, seed=7))
    assert luck.verdict == ("cannot tell" if luck.estimate > 0 else "fail")


def test_can_not_tell_says_what_could_be_told() -> None:
    """Twelve images, ups and downs as large as the lead: the verdict names the difference that they would have shown."""
    winner, live = scored("unet", 0.82, 12, 0.1), scored("v1", 0.8, 12, 0.1, seed=7)
    found = one("champion", winner, champion=Champion("v0.2.0", live), margin=0.0)
    assert found.verdict == "cannot tell" and found.p_value > 0.05
    assert found.detectable > abs(found.estimate)
    assert (
        f"12 images or groups, enough to see a difference of {found.detectable:.3f} four times in five"
        in found.sentence
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


def test_no_baseline_can_not_tell_and_says_what_to_do() -> None:
    found = one("baseline", scored("unet", 0.9))
    assert found.verdict == "cannot tell" and "gates.baseline: null" in found.sentence


def test_champion_must_not_be_lost_to() -> None:
    winner, live = scored("unet", 0.85), scored("v1", 0.86)
    near = one("champion", winner, champion=Champion("v0.2.0", live), margin=0.05)
    assert near.verdict == "pass" and near.estimate < 0
    assert "below the champion v0.2.0 (" in near.sentence and "0.050 below is allowed" in near.sentence
    found = one("champion", winner, champion=Champion("v0.2.0", live), margin=0.001)
    assert found.verdict == "fail" and len(found.worst) == 3


def test_the_same_model_is_not_worse_than_itself() -> None:
    winner = scored("unet", 0.85)
    found = one("champion", winner, champion=Champion("v0.2.0", winner, same_model=True), margin=0)
    assert (
        found.verdict == "pass"
        and "no different from the champion v0.2.0" in found.sentence
        and "the same model, trained again" in found.sentence
        and found.worst == []
    )


def test_no_champion_passes_and_one_that_can_not_be_scored_does_not() -> None:
    winner = scored("unet", 0.85)
    assert one("champion", winner).sentence == "Pass: no champion yet."
    found = one("champion", winner, champion=Champion("v0.2.0", None, "its classes are a, b, the data's a, c"))
    assert found.verdict == "cannot tell" and "its classes are a, b" in found.sentence


def test_a_paired_gate_wants_the_same_images() -> None:
    with pytest.raises(DataError, match="different images"):
        one("baseline", scored("unet", 0.9, 10), scored("kmeans", 0.5, 11))


def test_models_are_paired_by_key_not_by_place() -> None:
    winner, live = scored("unet", 0.8, spread=0.3), scored("v1", 0.8, spread=0.3)
    order = np.random.default_rng(0).permutation(40)
    shuffled = dataclasses.replace(live, keys=[live.keys[i] for i in order], tally=live.tally[order])
    found = one("champion", winner, champion=Champion("v0.2.0", shuffled))
    assert (found.low, found.high) == (0, 0)


@pytest.mark.parametrize("gate", ["floor", "baseline", "champion"])
def test_an_unknown_metric_is_a_setting_to_mend(gate: str) -> None:
    with pytest.raises(ConfigError, match=r"did you mean `iou\.class\.cell`"):
        one(gate, scored("unet", 0.9), metric="iou.class.cells")


@pytest.mark.parametrize("gate", ["floor", "baseline", "champion"])
def test_a_score_that_does_not_exist_can_not_tell(gate: str) -> None:
    winner = scored("unet", 0.9)
    nowhere = dataclasses.replace(winner, tally=np.zeros_like(winner.tally))
    found = one(gate, nowhere, nowhere, Champion("v0.2.0", nowhere), metric="iou.class.cell")
    assert found.verdict == "cannot tell" and found.estimate is None and found.low is None
    assert "nan" not in found.sentence and "nothing in the test images counts for it" in found.sentence


def test_a_single_image_can_not_tell() -> None:
    winner = scored("unet", 0.9, images=1)
    assert one("floor", winner).verdict == "cannot tell"
    assert "a single image can't say" in one("floor", winner).sentence
    assert one("baseline", winner, scored("kmeans", 0.2, images=1)).verdict == "cannot tell"


def test_gates_switched_off_say_nothing() -> None:
    off = GateParams(floor=None, baseline=None, champion=None, test_size=None)
    assert judge(off, Case(QUICK, scored("unet", 0.9))) == []


@settings(max_examples=200, deadline=None)
@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1), st.floats(-1, 1), st.booleans())
def test_a_verdict_is_where_the_interval_lies(
    estimate: float, below: float, above: float, threshold: float, strict: bool
) -> None:
    found = Interval(estimate, estimate - below, estimate + above, 0.95, 20)
    verdict = verdict_above(found, threshold, strict)
    if verdict == "pass":
        assert found.low >= threshold and (not strict or found.low > threshold)
    elif verdict == "fail":
        assert estimate <= threshold
    else:
        assert found.low <= threshold <= estimate


@pytest.mark.parametrize(("images", "verdict"), [(5, "cannot tell"), (6, "pass")])
def test_better_is_said_where_the_test_agrees(images: int, verdict: str) -> None:
    """Of five images that all do better, one in sixteen exchanges is as far apart: too many, whatever the interval says."""
    worse, better = (scored(name, a, images, spread=0.01) for name, a in (("old", 0.7), ("unet", 0.8)))
    for found in (
        one("baseline", better, baseline=worse),
        one("champion", better, champion=Champion("v1", worse), superior=True),
    ):
        assert found.low > 0 and found.p_value == 2 / 2**images and found.verdict == verdict
        said = "but models that are alike are as far apart on 5 images or groups with a chance of 0.062"
        assert (said in found.sentence) == (verdict == "cannot tell")
    assert one("champion", better, champion=Champion("v1", worse)).verdict == "pass", (
        "not worse is shown by the interval"
    )
    assert one("baseline", better, baseline=worse, margin=-0.1).verdict == "pass"


def test_models_that_are_alike_are_called_different_at_the_nominal_rate() -> None:
    """On images of very different sizes, of which a few decide, with answers exchanged by lot: neither model is better."""
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


def test_what_only_need_not_be_worse_rests_on_the_cautious_bound() -> None:
    """Of not worse no test has a say, so its bound is the cautious one; better is said by interval and test together."""
    winner, other = scored("unet", 0.82, images=9), scored("old", 0.8, images=9, seed=1)
    compared = compare_on("iou.dataset.macro", winner, other, QUICK)
    assert compared.conservative.low < compared.difference.low
    live = Champion("v0.1.0", other)
    assert one("champion", winner, champion=live).low == compared.conservative.low
    assert one("champion", winner, champion=live, superior=True).low == compared.difference.low
    assert one("baseline", winner, baseline=other).low == compared.difference.low
    between = -(compared.conservative.low + compared.difference.low) / 2
    assert one("champion", winner, champion=live, margin=between).verdict == "cannot tell"

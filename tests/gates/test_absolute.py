"""Gates that the winner meets alone, modes, and waivers: each verdict with its numbers, its threshold and its words."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from segpipe.config import (
    CalibrationGate,
    ChampionGate,
    ClassFloorGate,
    DataGate,
    EvaluateParams,
    FloorGate,
    GateParams,
    ImageCountGate,
    SizeGate,
    Waiver,
    parse_params,
)
from segpipe.errors import ConfigError
from segpipe.evaluation.scores import ImageScore, Scores
from segpipe.evaluation.statistics import Interval
from segpipe.gates.case import Case, Champion
from segpipe.gates.judge import JUDGES, judge
from segpipe.gates.verdict_building import verdict_below
from segpipe.gates.verdicts import GateVerdict

QUICK = EvaluateParams(resamples=400)
NAMES = ["background", "cell", "nucleus"]
OFF = {"floor": None, "baseline": None, "champion": None, "test_size": None}
DAY = date(2027, 1, 31)


def scored(cell: float, nucleus: float, images: int = 30, with_nucleus: int = 12, spread: float = 0.03) -> Scores:
    """A model that finds these shares of the classes' pixels; some images have no nucleus."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(images):
        found = np.clip(np.array([cell, nucleus]) + spread * rng.normal(size=2), 0, 1)
        hits = (1000 * found).astype(int)
        counts = np.diag([5000, *hits])
        counts[1:, 0] = 1000 - hits
        if i >= with_nucleus:
            counts[2] = 0
        rows.append(ImageScore(f"i{i}", None, 70, 100, counts))
    return Scores.collect("unet", NAMES, {}, rows)


def only(case: Case, waivers: tuple[Waiver, ...] = (), today: date | None = None, **gate: object) -> GateVerdict:
    (verdict,) = judge(GateParams(**(OFF | gate), waivers=waivers), case, today)
    return verdict


def test_every_section_but_latency_has_its_judge() -> None:
    assert set(JUDGES) == set(GateParams.model_fields) - {"waivers", "latency"}


def test_a_class_that_is_never_found_fails_its_floor_although_the_mean_does_not() -> None:
    case = Case(QUICK, scored(0.9, 0.04))
    assert only(case, floor=FloorGate(at_least=0.5)).verdict == "pass"
    found = only(case, class_floor=ClassFloorGate())
    value = case.winner.value("iou.class.nucleus")
    assert found.verdict == "fail" and found.metric == "iou.class.nucleus" and found.estimate == value
    assert found.sentence.startswith(
        f"Fail: unet's test IoU of class nucleus is {value:.3f} on 12 images, below its floor of 0.100; worst on "
    )
    assert len(found.worst) == 3 and all(int(key[1:]) < 12 for key in found.worst)
    assert {p.name: p.verdict for p in found.parts} == {"nucleus": "fail", "cell": "pass", "background": "pass"}


def test_floors_of_single_classes() -> None:
    case = Case(QUICK, scored(0.9, 0.4))
    assert only(case, class_floor=ClassFloorGate(at_least=0.3)).verdict == "pass"
    strict = only(case, class_floor=ClassFloorGate(classes={"cell": 0.95, "nucleus": 0.6}))
    assert strict.verdict == "fail" and {p.threshold for p in strict.parts} == {0.1, 0.95, 0.6}
    assert "so is it with cell" in strict.sentence
    left_out = only(case, class_floor=ClassFloorGate(at_least=0.8, classes={"nucleus": 0}))
    assert left_out.verdict == "pass" and {p.name for p in left_out.parts} == {"background", "cell"}
    assert "every class reaches its floor" in left_out.sentence and "above the floor of 0.800" in left_out.sentence
    with pytest.raises(ConfigError, match=r"no such class \(found nuclei"):
        only(case, class_floor=ClassFloorGate(classes={"nuclei": 0.5}))


def test_a_class_on_few_images_can_not_tell() -> None:
    winner = scored(0.9, 0.3, with_nucleus=4, spread=0.25)
    least = winner.value("iou.class.nucleus") - 0.02
    found = only(Case(QUICK, winner), class_floor=ClassFloorGate(classes={"nucleus": least}))
    assert found.verdict == "cannot tell" and "the class is in 4 images" in found.sentence
    absent = only(Case(QUICK, scored(0.9, 0.5, with_nucleus=0)), class_floor=ClassFloorGate())
    assert absent.verdict == "cannot tell" and "the class is in no test image" in absent.sentence


def test_a_champion_may_have_to_be_beaten() -> None:
    same = Champion("v0.2.0", scored(0.9, 0.5))
    gate = ChampionGate(superior=True, margin=0.5)
    equal = only(Case(QUICK, same.scores, champion=same), champion=gate)
    assert equal.verdict == "fail" and "and better is asked for" in equal.sentence
    better = only(Case(QUICK, scored(0.95, 0.9), champion=same), champion=gate)
    assert better.verdict == "pass" and better.threshold == 0 and better.low > 0


def test_size_of_weights() -> None:
    winner = scored(0.9, 0.5)
    fits = only(Case(QUICK, winner, megabytes=24.5), size=SizeGate(at_most_mb=24.5))
    assert (fits.verdict, fits.estimate, fits.threshold, fits.side) == ("pass", 24.5, 24.5, "most")
    large = only(Case(QUICK, winner, megabytes=24.5), size=SizeGate(at_most_mb=20))
    assert large.sentence == "Fail: unet's weights have 24.500 MB, above the limit of 20 MB."
    assert only(Case(QUICK, winner), size=SizeGate()).verdict == "cannot tell"


def test_few_images_of_a_class_warn() -> None:
    case = Case(QUICK, scored(0.9, 0.5, with_nucleus=3))
    (found,) = judge(GateParams(floor=None, baseline=None, champion=None), case)
    assert (found.verdict, found.mode, found.blocks) == ("fail", "warn", False)
    assert (
        found.sentence
        == "Fail: fewer than 5 test images show nucleus (3): scores of it are anecdotes. This gate only warns."
    )
    assert only(case, test_size=ImageCountGate(at_least=3)).sentence == (
        "Pass: every class is in 3 test images or more, the rarest, nucleus, in 3."
    )
    assert only(case, test_size=ImageCountGate(mode="block")).blocks


def findings(**changes: object) -> dict:
    moved = [
        {"quantity": "mean of channel 1", "psi": 0.31, "p_value": 1e-6},
        {"quantity": "share of cell", "psi": 0.02, "p_value": 0.4},
    ]
    warning = {"severity": "warning", "expectation": "class_imbalance"}
    return {"passed": True, "findings": [warning, {"severity": "note", "expectation": "x"}], "drift": moved} | changes


@pytest.mark.parametrize(
    ("settings", "changes", "verdict", "words"),
    [
        ({"max_drift": 0.5}, {}, "pass", "mean of channel 1 (stability index 0.310, 0.5 is allowed)"),
        ({}, {}, "fail", "above 0.25: mean of channel 1 (0.310)"),
        ({"max_drift": None}, {}, "pass", "passed validation with 1 warning; what moved most"),
        ({"max_drift": None, "max_warnings": 0}, {}, "fail", "1 warnings (class_imbalance), and 0 are allowed"),
        (
            {},
            {"drift": [{"quantity": "a", "psi": 0.4, "p_value": 0.01}]},
            "pass",
            "is a (stability index 0.400, 0.25 is allowed, and this may be luck)",
        ),
        ({}, {"drift": []}, "pass", "passed validation with 1 warning."),
        ({}, {"passed": False, "drift": []}, "fail", "the data did not pass validation"),
    ],
)
def test_what_validation_found(settings: dict, changes: dict, verdict: str, words: str) -> None:
    found = only(Case(QUICK, scored(0.9, 0.5), findings=findings(**changes)), data=DataGate(**settings))
    assert found.verdict == verdict and words in found.sentence
    assert only(Case(QUICK, scored(0.9, 0.5)), data=DataGate()).verdict == "cannot tell"


def test_confidences_that_were_not_counted_can_not_tell() -> None:
    found = only(Case(QUICK, scored(0.9, 0.5)), calibration=CalibrationGate())
    assert found.verdict == "cannot tell" and "dvc repro evaluate@unet" in found.sentence


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_an_upper_bound_lies_below_or_not(estimate: float, above: float, threshold: float) -> None:
    verdict = verdict_below(Interval(estimate, estimate - 0.1, estimate + above, 0.95, 9), threshold)
    assert verdict == ("pass" if estimate + above <= threshold else "fail" if estimate > threshold else "cannot tell")


def waiver(until: date, gate: str = "floor", name: str = "A. Vogel") -> Waiver:
    return Waiver(gate=gate, name=name, reason="new stain, more images are coming.", until=str(until))


@pytest.mark.parametrize(("days", "blocks"), [(-1, True), (0, False), (1, False)])
def test_a_waiver_holds_to_its_last_day(days: int, blocks: bool) -> None:
    found = only(Case(QUICK, scored(0.5, 0.2)), (waiver(DAY + timedelta(days)),), DAY, floor=FloorGate(at_least=0.9))
    assert (found.verdict, found.blocks, found.waiver.expired) == ("fail", blocks, blocks)
    if blocks:
        assert found.sentence.endswith("The waiver of A. Vogel ended on 2027-01-30.")
    else:
        assert f"Waived by A. Vogel until {DAY + timedelta(days)}: new stain, more images are coming." in found.sentence
    assert GateVerdict.model_validate_json(found.model_dump_json()) == found


def test_a_waiver_is_for_its_gate_and_for_what_did_not_pass() -> None:
    case = Case(QUICK, scored(0.5, 0.2))
    other = only(case, (waiver(DAY, "champion"),), DAY, floor=FloorGate(at_least=0.9))
    assert other.waiver is None and other.blocks
    passed = only(case, (waiver(DAY),), DAY, floor=FloorGate(at_least=0.1))
    assert passed.waiver is None and not passed.blocks and "Waived" not in passed.sentence
    longest = (waiver(DAY - timedelta(9), name="A"), waiver(DAY, name="B"), waiver(DAY - timedelta(3), name="C"))
    assert only(case, longest, DAY, floor=FloorGate(at_least=0.9)).waiver.name == "B"
    warned = only(case, (waiver(DAY),), DAY, floor=FloorGate(at_least=0.9, mode="warn"))
    assert warned.waiver is None and not warned.blocks and warned.sentence.endswith("This gate only warns.")


def test_a_verdict_of_an_earlier_version_blocks_unless_it_passes() -> None:
    old = {"name": "floor", "sentence": "s", "reason": "r", "metric": "m"}
    assert GateVerdict.model_validate(old | {"verdict": "cannot tell"}).blocks
    assert not GateVerdict.model_validate(old | {"verdict": "pass"}).blocks


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{gate: floors, name: a, reason: b, until: '2027-01-31'}", "`gates.waivers.0.gate` is wrong"),
        ("{gate: floor, name: a, reason: b, until: soon}", "`gates.waivers.0.until` is wrong"),
        ("{gate: floor, name: a, reason: b, until: 2027-01-31}", "in quotes"),
        ("{gate: floor, reason: b, until: '2027-01-31'}", "`gates.waivers.0.name` is wrong"),
        ("{gate: floor, name: a, reason: '', until: '2027-01-31'}", "`gates.waivers.0.reason` is wrong"),
    ],
)
def test_a_waiver_needs_name_reason_and_day(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace(".", r"\.")):
        parse_params(f"candidates: {{a: {{family: unet}}}}\ngates: {{waivers: [{text}]}}")


def test_gates_are_read_from_params() -> None:
    text = "candidates: {a: {family: unet}}\ngates: {slice: {margin: 0.1, unsure: warn}, champion: {superior: true, mode: warn}, "
    found = parse_params(text + "waivers: [{gate: slice, name: a, reason: b, until: '2027-01-31'}]}").gates
    assert found.slice.margin == 0.1 and found.champion.superior and found.champion.mode == "warn"
    assert found.waivers[0].until == DAY and found.floor.at_least == 0.3
    with pytest.raises(ValidationError):
        ClassFloorGate(ratio="mcc")

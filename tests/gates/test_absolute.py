"""Tests of gates on the winner alone, of modes and of waivers: verdicts with their numbers, thresholds and sentences."""

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
from segpipe.drift.comparison import DriftSummary
from segpipe.errors import ConfigError
from segpipe.evaluation.scores import ImageScore, Scores
from segpipe.evaluation.statistics import Interval
from segpipe.gates.case import Case, Champion
from segpipe.gates.judge import JUDGES, judge
from segpipe.gates.verdict_building import verdict_below
from segpipe.gates.verdicts import GateVerdict
from segpipe.validation.findings import FindingsFile

QUICK = EvaluateParams(resamples=400)
NAMES = ["background", "cell", "nucleus"]
OFF = {"floor": None, "baseline": None, "champion": None, "test_size": None}
DAY = date(2027, 1, 31)


def scored(cell: float, nucleus: float, images: int = 30, with_nucleus: int = 12, spread: float = 0.03) -> Scores:
    """Return scores of a model that finds these fractions of the classes' pixels; some images have no nucleus."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(images):
        recall = np.clip(np.array([cell, nucleus]) + spread * rng.normal(size=2), 0, 1)
        hits = (1000 * recall).astype(int)
        counts = np.diag([5000, *hits])
        counts[1:, 0] = 1000 - hits
        if i >= with_nucleus:
            counts[2] = 0
        rows.append(ImageScore(f"i{i}", None, 70, 100, counts))
    return Scores.collect("unet", NAMES, {}, rows)


def only(case: Case, waivers: tuple[Waiver, ...] = (), today: date | None = None, **gate: object) -> GateVerdict:
    (verdict,) = judge(GateParams(**(OFF | gate), waivers=waivers), case, today)
    return verdict


def test_every_section_but_latency_has_a_judge() -> None:
    assert set(JUDGES) == set(GateParams.model_fields) - {"waivers", "latency"}


def test_a_class_that_is_never_found_fails_its_floor_although_the_mean_does_not() -> None:
    case = Case(QUICK, scored(0.9, 0.04))
    assert only(case, floor=FloorGate(at_least=0.5)).verdict == "pass"
    verdict = only(case, class_floor=ClassFloorGate())
    value = case.winner.value("iou.class.nucleus")
    assert verdict.verdict == "fail" and verdict.metric == "iou.class.nucleus" and verdict.estimate == value
    assert verdict.sentence.startswith(
        f"Fail: unet's test IoU of class nucleus is {value:.3f} on 12 images, below its floor of 0.100; worst on "
    )
    assert len(verdict.worst) == 3 and all(int(key[1:]) < 12 for key in verdict.worst)
    assert {p.name: p.verdict for p in verdict.parts} == {"nucleus": "fail", "cell": "pass", "background": "pass"}


def test_floors_of_single_classes() -> None:
    case = Case(QUICK, scored(0.9, 0.4))
    assert only(case, class_floor=ClassFloorGate(at_least=0.3)).verdict == "pass"
    strict = only(case, class_floor=ClassFloorGate(classes={"cell": 0.95, "nucleus": 0.6}))
    assert strict.verdict == "fail" and {p.threshold for p in strict.parts} == {0.1, 0.95, 0.6}
    assert "the same holds for cell" in strict.sentence
    left_out = only(case, class_floor=ClassFloorGate(at_least=0.8, classes={"nucleus": 0}))
    assert left_out.verdict == "pass" and {p.name for p in left_out.parts} == {"background", "cell"}
    assert "every class reaches its floor" in left_out.sentence and "above the floor of 0.800" in left_out.sentence
    with pytest.raises(ConfigError, match=r"no such class \(found nuclei"):
        only(case, class_floor=ClassFloorGate(classes={"nuclei": 0.5}))


def test_a_class_on_few_images_cannot_tell() -> None:
    winner = scored(0.9, 0.3, with_nucleus=4, spread=0.25)
    least = winner.value("iou.class.nucleus") - 0.02
    verdict = only(Case(QUICK, winner), class_floor=ClassFloorGate(classes={"nucleus": least}))
    assert verdict.verdict == "cannot tell" and "the class is in 4 images" in verdict.sentence
    absent = only(Case(QUICK, scored(0.9, 0.5, with_nucleus=0)), class_floor=ClassFloorGate())
    assert absent.verdict == "cannot tell" and "no test image has the class" in absent.sentence


def test_a_champion_may_have_to_be_beaten() -> None:
    same = Champion("v0.2.0", scored(0.9, 0.5))
    gate = ChampionGate(superior=True, margin=0.5)
    equal = only(Case(QUICK, same.scores, champion=same), champion=gate)
    assert equal.verdict == "fail" and "and the winner must be better" in equal.sentence
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
    (verdict,) = judge(GateParams(floor=None, baseline=None, champion=None), case)
    assert (verdict.verdict, verdict.mode, verdict.blocks) == ("fail", "warn", False)
    assert (
        verdict.sentence
        == "Fail: fewer than 5 test images show nucleus (3), too few for reliable scores. This gate only warns."
    )
    assert only(case, test_size=ImageCountGate(at_least=3)).sentence == (
        "Pass: every class is in at least 3 test images; the rarest, nucleus, is in 3."
    )
    assert only(case, test_size=ImageCountGate(mode="block")).blocks


def shift(quantity: str, psi: float, p_value: float) -> DriftSummary:
    return DriftSummary(quantity=quantity, psi=psi, ks=0.1, p_value=p_value, drifted=False, before=1.0, now=2.0)


def findings(**changes: object) -> FindingsFile:
    shifts = [shift("mean of channel 1", 0.31, 1e-6), shift("share of cell", 0.02, 0.4)]
    texts = {"file": None, "found": "", "expected": "", "fix": ""}
    rows = [
        {"severity": "warning", "expectation": "class_imbalance"} | texts,
        {"severity": "note", "expectation": "x"} | texts,
    ]
    return FindingsFile.model_validate({"passed": True, "findings": rows, "drift": shifts} | changes)


@pytest.mark.parametrize(
    ("settings", "changes", "expected", "words"),
    [
        ({"max_drift": 0.5}, {}, "pass", "mean of channel 1 (stability index 0.310, 0.5 is allowed)"),
        ({}, {}, "fail", "above 0.25: mean of channel 1 (0.310)"),
        (
            {"max_drift": None},
            {},
            "pass",
            "passed validation with 1 warning; the largest shift from the production data is in mean of channel 1 (stability index 0.310)",
        ),
        ({"max_drift": None, "max_warnings": 0}, {}, "fail", "1 warning (class_imbalance), and 0 are allowed"),
        (
            {},
            {"drift": [shift("a", 0.4, 0.01)]},
            "pass",
            "is in a (stability index 0.400, 0.25 is allowed, and this may be due to chance)",
        ),
        ({}, {"drift": []}, "pass", "passed validation with 1 warning."),
        ({}, {"passed": False, "drift": []}, "fail", "the data did not pass validation"),
    ],
)
def test_findings_of_validation(settings: dict, changes: dict, expected: str, words: str) -> None:
    verdict = only(Case(QUICK, scored(0.9, 0.5), findings=findings(**changes)), data=DataGate(**settings))
    assert verdict.verdict == expected and words in verdict.sentence
    assert only(Case(QUICK, scored(0.9, 0.5)), data=DataGate()).verdict == "cannot tell"


def test_calibration_that_was_not_measured_cannot_tell() -> None:
    verdict = only(Case(QUICK, scored(0.9, 0.5)), calibration=CalibrationGate())
    assert verdict.verdict == "cannot tell" and "dvc repro evaluate@unet" in verdict.sentence


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_an_upper_bound_is_compared_with_the_threshold(estimate: float, above: float, threshold: float) -> None:
    verdict = verdict_below(Interval(estimate, estimate - 0.1, estimate + above, 0.95, 9), threshold)
    assert verdict == ("pass" if estimate + above <= threshold else "fail" if estimate > threshold else "cannot tell")


def waiver(until: date, gate: str = "floor", name: str = "A. Vogel") -> Waiver:
    return Waiver(gate=gate, name=name, reason="new stain, more images are coming.", until=str(until))


@pytest.mark.parametrize(("days", "blocks"), [(-1, True), (0, False), (1, False)])
def test_a_waiver_is_valid_until_its_last_day(days: int, blocks: bool) -> None:
    verdict = only(Case(QUICK, scored(0.5, 0.2)), (waiver(DAY + timedelta(days)),), DAY, floor=FloorGate(at_least=0.9))
    assert (verdict.verdict, verdict.blocks, verdict.waiver.expired) == ("fail", blocks, blocks)
    if blocks:
        assert verdict.sentence.endswith("The waiver of A. Vogel ended on 2027-01-30.")
    else:
        assert (
            f"Waived by A. Vogel until {DAY + timedelta(days)}: new stain, more images are coming." in verdict.sentence
        )
    assert GateVerdict.model_validate_json(verdict.model_dump_json()) == verdict


def test_a_waiver_covers_its_gate_if_it_did_not_pass() -> None:
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
    gates = parse_params(text + "waivers: [{gate: slice, name: a, reason: b, until: '2027-01-31'}]}").gates
    assert gates.slice.margin == 0.1 and gates.champion.superior and gates.champion.mode == "warn"
    assert gates.waivers[0].until == DAY and gates.floor.at_least == 0.3
    with pytest.raises(ValidationError):
        ClassFloorGate(ratio="mcc")


def test_the_floor_cannot_tell_if_the_validation_split_chose_nothing() -> None:
    case = Case(QUICK, scored(0.9, 0.9), val_can_choose=False)
    verdict = only(case, floor=FloorGate(at_least=0.5))
    assert verdict.verdict == "cannot tell"
    assert "the validation split holds a single class" in verdict.sentence

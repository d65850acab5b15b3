"""Gates that the winner meets alone: floors, calibration, robustness, size, its data and how many test images there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from segpipe.config import (
    CalibrationGate,
    ClassFloorGate,
    DataGate,
    FloorGate,
    ImageCountGate,
    RobustnessGate,
    SizeGate,
)
from segpipe.errors import ConfigError
from segpipe.evaluation.calibration import calibration_interval
from segpipe.evaluation.instance_metrics import class_metric, is_instance
from segpipe.evaluation.metric_lookup import describe_metric, interval_of
from segpipe.evaluation.statistics import Interval
from segpipe.gates.case import Case
from segpipe.gates.verdict_building import (
    basis_words,
    confidence_words,
    distinct_numbers,
    interval_verdict,
    none_if_nan,
    plain_verdict,
    verdict_above,
    verdict_below,
    worst_images,
)
from segpipe.gates.verdicts import WORST_FIRST, GateVerdict, Part
from segpipe.metrics import MAIN_METRIC

MAX_DRIFT_P_VALUE = 0.001
"""The p value, over all quantities (Bonferroni), below which a quantity has moved, and not by luck."""

_LISTED = 3
"""Classes, findings or quantities that a sentence names."""


def floor(gate: FloorGate, case: Case) -> GateVerdict:
    """The lower bound of the metric reaches `at_least`."""
    winner = case.winner
    found = interval_of(gate.metric, winner, case.params)
    verdict = verdict_above(found, gate.at_least)
    value, least = distinct_numbers(found.estimate, gate.at_least)
    said = f"{winner.candidate}'s test {describe_metric(gate.metric)} "
    if np.isnan(found.estimate):
        said += "does not exist: nothing in the test images counts for it"
    elif verdict == "pass":
        said += f"is {value}, at least {found.low:.3f} with {confidence_words(found)} confidence, above the floor of {least}"
    elif verdict == "fail":
        said += f"is {value}, below the floor of {least}"
    elif np.isnan(found.low):
        said += f"is {value}, above the floor of {least}, but a single image can't say how sure that is"
    else:
        said += (
            f"is {value}, above the floor of {least}, but it may be as low as {found.low:.3f} ({basis_words(found)})"
        )
    return interval_verdict(
        "floor", verdict, said, gate, found, gate.at_least, worst_images(winner, winner.of_images(gate.metric))
    )


def class_floor(gate: ClassFloorGate, case: Case) -> GateVerdict:
    """The lower bound of each class reaches its value. All must hold at once, so that no correction for their number is due.

    Raises ConfigError where the gate names a class that there is not.
    """
    winner, params = case.winner, case.params
    if strange := sorted(gate.classes.keys() - set(winner.classes)):
        raise ConfigError(
            "no such class",
            where="params.yaml: gates.class_floor.classes",
            found=strange[0],
            expected=" or ".join(winner.classes),
        )
    rows = []
    there = winner.tally[:, 1] > 0
    if is_instance(gate.ratio) and winner.objects is not None:
        there = winner.objects[:, 0, 1] > 0
    for index, name in enumerate(winner.classes):
        least = gate.classes.get(name, gate.at_least)
        # A background has no objects, and neither need other classes.
        if least == 0 or (is_instance(gate.ratio) and name not in gate.classes and not there[:, index].any()):
            continue
        found = interval_of(_of_class(gate.ratio, name), winner, params)
        images = int(np.count_nonzero(there[:, index]))
        part = Part(
            name=name,
            verdict=verdict_above(found, least),
            images=images,
            estimate=none_if_nan(found.estimate),
            low=none_if_nan(found.low),
            high=none_if_nan(found.high),
            threshold=least,
        )
        rows.append((part, found))
    if not rows:
        return plain_verdict("class_floor", "pass", "no class has a floor", gate, metric=f"{gate.ratio}.class")
    # The deciding class: of the worst verdict, the one that is furthest below its floor (one without a bound first of all).
    rows.sort(key=lambda row: (WORST_FIRST[row[0].verdict], _margin(row[0])))
    part, found = rows[0]
    name = _of_class(gate.ratio, part.name)
    worst = worst_images(winner, winner.of_images(name))
    said = _class_words(
        winner.candidate, describe_metric(name), [row[0] for row in rows], confidence_words(found), basis_words(found)
    )
    parts = [row[0] for row in rows]
    return interval_verdict(
        "class_floor", part.verdict, said, gate, found, part.threshold, worst, metric=name, parts=parts
    )


def _margin(part: Part) -> float:
    low = part.estimate if part.verdict == "fail" else part.low
    return -np.inf if low is None else low - part.threshold


def _of_class(ratio: str, name: str) -> str:
    return class_metric(ratio, name) if is_instance(ratio) else f"{ratio}.class.{name}"


def _class_words(candidate: str, metric_words: str, parts: list[Part], confidence: str, resting_on: str) -> str:
    first = parts[0]
    said = f"{candidate}'s test {metric_words} "
    if first.estimate is None:
        return said + "does not exist: the class is in no test image"
    value, least = distinct_numbers(first.estimate, first.threshold)
    if first.verdict == "pass":
        return (
            f"every class reaches its floor; {said}is nearest to it: {value}, at least {first.low:.3f} with {confidence} "
            f"confidence, above the floor of {least}"
        )
    also = [
        f"{p.name} ({'no score' if p.estimate is None else f'{p.estimate:.3f}'})"
        for p in parts[1:]
        if p.verdict == first.verdict
    ]
    more = f"; so is it with {_listed(also)}" if also else ""
    if first.verdict == "fail":
        return f"{said}is {value} on {first.images} images, below its floor of {least}{more}"
    low = "a single image can't say how sure that is" if first.low is None else f"it may be as low as {first.low:.3f}"
    return f"{said}is {value}, above its floor of {least}, but {low} ({resting_on}; the class is in {first.images} images){more}"


def calibration(gate: CalibrationGate, case: Case) -> GateVerdict:
    """The upper bound of the expected calibration error stays below `at_most`."""
    winner = case.winner
    found = calibration_interval(winner, case.params)
    if found is None or winner.reliability is None or np.isnan(found.estimate):
        said = f"{winner.candidate}'s confidences were not counted; dvc repro evaluate@{winner.candidate} counts them"
        return plain_verdict("calibration", "cannot tell", said, gate, metric="calibration.ece", side="most")
    verdict = verdict_below(found, gate.at_most)
    value, most = distinct_numbers(found.estimate, gate.at_most)
    said = f"{winner.candidate}'s expected calibration error on the test images is {value}"
    if verdict == "fail":
        said += f", above the limit of {most}"
    elif verdict == "pass":
        said += f", at most {found.high:.3f} with {confidence_words(found)} confidence, within the limit of {most}"
    elif np.isnan(found.high):
        said += f", within the limit of {most}, but a single image can't say how sure that is"
    else:
        said += f", within the limit of {most}, but it may be as high as {found.high:.3f} ({basis_words(found)})"
    count, confidence, hits = np.moveaxis(winner.reliability, 1, 0)
    with np.errstate(invalid="ignore"):
        own = np.abs(confidence - hits).sum(1) / count.sum(1)
    return interval_verdict(
        "calibration",
        verdict,
        said,
        gate,
        found,
        gate.at_most,
        worst_images(winner, -own),
        metric="calibration.ece",
        side="most",
    )


def robustness(gate: RobustnessGate, case: Case) -> GateVerdict:
    """For each corruption, the upper bound of the drop stays below `at_most`. All must hold at once, so that no correction for
    their number is due."""
    told: dict[str, Any] = {"metric": "robustness.drop", "side": "most"}
    measured = case.robustness or {}
    by = {name: rows[gate.severity] for name, rows in measured.get("by", {}).items() if gate.severity in rows}
    missing = [name for name in gate.corruptions if name not in by]
    name = case.winner.candidate
    if missing or not by:
        what = _listed(missing) if missing and by else "spoilt images"
        said = (
            f"{name} was not scored on {gate.severity} {what}; `evaluate.robustness: "
            f"{'quick' if gate.severity == 'medium' else 'full'}` does that where images allow it"
        )
        return plain_verdict("robustness", "cannot tell", said, gate, **told)
    rows = []
    for corruption in gate.corruptions or by:
        row = by[corruption]
        found = Interval(
            row["drop"], row.get("low", np.nan), row.get("high", np.nan), case.params.confidence, measured["units"]
        )
        part = Part(
            name=corruption,
            verdict=verdict_below(found, gate.at_most),
            images=measured["images"],
            estimate=row["drop"],
            low=none_if_nan(found.low),
            high=none_if_nan(found.high),
            threshold=gate.at_most,
        )
        rows.append((part, found))
    rows.sort(key=lambda row: (WORST_FIRST[row[0].verdict], -_reached(row[1])))
    part, found = rows[0]
    value, most = distinct_numbers(found.estimate, gate.at_most)
    lost = f"{gate.severity} {part.name} costs {name} {value} of its test {describe_metric(MAIN_METRIC)}"
    lost += f" of {measured['score']:.3f} on {measured['images']} images"
    if part.verdict == "fail":
        others = [row[0].name for row in rows[1:] if row[0].verdict == "fail"]
        said = f"{lost}, more than {most}" + (f"; so does {_listed(others)}" if others else "")
    elif part.verdict == "pass":
        said = f"no corruption costs too much; {lost}, the most of all: "
        said += f"at most {found.high:.3f} with {confidence_words(found)} confidence, "
        said += f"and {most} is allowed"
    elif np.isnan(found.high):
        said = f"{lost}, and {most} is allowed, but a single image can't say how sure that is"
    else:
        said = f"{lost}, and {most} is allowed, but it may be as much as {found.high:.3f} ({basis_words(found)})"
    return interval_verdict(
        "robustness", part.verdict, said, gate, found, gate.at_most, [], parts=[row[0] for row in rows], **told
    )


def _reached(found: Interval) -> float:
    """How bad it may be."""
    return found.estimate if np.isnan(found.high) else found.high


def size(gate: SizeGate, case: Case) -> GateVerdict:
    """The weights have no more than `at_most_mb` megabytes."""
    told = {"metric": "model.megabytes", "side": "most", "threshold": gate.at_most_mb}
    if case.megabytes is None:
        said = (
            f"the size of {case.winner.candidate} is not known; dvc repro evaluate@{case.winner.candidate} measures it"
        )
        return plain_verdict("size", "cannot tell", said, gate, **told)
    fits = case.megabytes <= gate.at_most_mb
    said = (
        f"{case.winner.candidate}'s weights have {case.megabytes:.3f} MB, {'within' if fits else 'above'} the limit of "
    )
    return plain_verdict(
        "size", "pass" if fits else "fail", f"{said}{gate.at_most_mb:g} MB", gate, estimate=case.megabytes, **told
    )


def data(gate: DataGate, case: Case) -> GateVerdict:
    """Validation passed, with no more warnings than `max_warnings`, and no quantity is shown to have moved by more than
    `max_drift`. The index of few images is large by luck, so it counts only where the two-sample test agrees (`DRIFT_SHOWN`)."""
    if case.findings is None:
        return plain_verdict("data", "cannot tell", "there are no findings of the validation; dvc repro validate", gate)
    warnings = [f for f in case.findings["findings"] if f["severity"] == "warning"]
    moved = sorted(case.findings.get("drift", []), key=lambda d: -d["psi"])
    errors = []
    if not case.findings["passed"]:
        errors.append("the data did not pass validation")
    if gate.max_warnings is not None and len(warnings) > gate.max_warnings:
        names = _listed(sorted({w["expectation"] for w in warnings}))
        errors.append(f"validation found {len(warnings)} warnings ({names}), and {gate.max_warnings} are allowed")
    limit = np.inf if gate.max_drift is None else gate.max_drift
    shown = [d for d in moved if d["p_value"] * len(moved) < MAX_DRIFT_P_VALUE]
    if far := [f"{d['quantity']} ({d['psi']:.3f})" for d in shown if d["psi"] > limit]:
        errors.append(f"population stability index against production above {limit:g}: {_listed(far)}")
    told: dict[str, Any] = {"metric": "data"}
    if moved and gate.max_drift is not None:
        told = {"metric": "data.psi", "side": "most", "estimate": moved[0]["psi"], "threshold": gate.max_drift}
    said = f"the data passed validation with {len(warnings)} warning{'' if len(warnings) == 1 else 's'}"
    if moved:
        said += f"; what moved most against production is {moved[0]['quantity']} (stability index {moved[0]['psi']:.3f}"
        luck = ", and this may be luck" if moved[0]["psi"] > limit else ""
        said += ")" if gate.max_drift is None else f", {gate.max_drift:g} is allowed{luck})"
    return plain_verdict("data", "fail" if errors else "pass", "; ".join(errors) or said, gate, **told)


def image_count(gate: ImageCountGate, case: Case) -> GateVerdict:
    """Every class is in `at_least` test images."""
    there = (case.winner.tally[:, 1] > 0).sum(0)
    counts = sorted(zip(there.tolist(), case.winner.classes, strict=True))
    parts = [
        Part(name=name, verdict="pass" if n >= gate.at_least else "fail", images=n, estimate=n, threshold=gate.at_least)
        for n, name in counts
    ]
    few = [f"{name} ({n})" for n, name in counts if n < gate.at_least]
    least, rarest = counts[0]
    if few:
        said = f"fewer than {gate.at_least} test images show {_listed(few)}: scores of {'them' if len(few) > 1 else 'it'} are anecdotes"
    else:
        said = f"every class is in {gate.at_least} test images or more, the rarest, {rarest}, in {least}"
    told = {"metric": "images.class", "estimate": least, "threshold": gate.at_least, "parts": parts}
    return plain_verdict("test_size", "fail" if few else "pass", said, gate, **told)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more

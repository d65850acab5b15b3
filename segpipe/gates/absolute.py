"""Gates on the winner alone: floors, calibration, size of the weights, its data, number of test images."""

from __future__ import annotations

from typing import Any

import numpy as np

from segpipe.config import CalibrationGate, ClassFloorGate, DataGate, FloorGate, ImageCountGate, SizeGate
from segpipe.errors import ConfigError
from segpipe.evaluation.calibration import calibration_interval
from segpipe.evaluation.instance_metrics import class_metric, is_instance
from segpipe.evaluation.metric_lookup import describe_metric, interval_of
from segpipe.evaluation.statistics import Interval
from segpipe.gates.case import Case
from segpipe.gates.verdict_building import (
    NO_BOUND,
    basis_words,
    confidence_words,
    distinct_numbers,
    interval_part,
    interval_verdict,
    plain_verdict,
    verdict_above,
    verdict_below,
    worst_images,
)
from segpipe.gates.verdicts import WORST_FIRST, GateVerdict, Part
from segpipe.words import listed

MAX_DRIFT_P_VALUE = 0.001
"""Largest p value, Bonferroni-corrected for the number of quantities, at which a shift of a quantity counts as real."""


def floor(gate: FloorGate, case: Case) -> GateVerdict:
    """Require that the lower bound of the metric reaches `at_least`."""
    winner = case.winner
    if not case.val_can_choose:
        text = (
            f"{winner.candidate} was not chosen: the validation split holds a single class, so that a model which finds nothing is perfect "
            "there; put images with the other classes into it"
        )
        return plain_verdict("floor", "cannot tell", text, gate, metric=gate.metric, threshold=gate.at_least)
    interval = interval_of(gate.metric, winner, case.params)
    verdict = verdict_above(interval, gate.at_least)
    value, least = distinct_numbers(interval.estimate, gate.at_least)
    text = f"{winner.candidate}'s test {describe_metric(gate.metric)} is "
    if np.isnan(interval.estimate):
        text += "undefined: nothing in the test images counts for it"
    elif verdict == "fail":
        text += f"{value}, below the floor of {least}"
    elif verdict == "pass":
        text += f"{value}, at least {interval.low:.3f} with {confidence_words(interval)} confidence, above the floor of {least}"
    elif np.isnan(interval.low):
        text += f"{value}, above the floor of {least}, but {NO_BOUND}"
    else:
        text += (
            f"{value}, above the floor of {least}, but it may be as low as {interval.low:.3f} ({basis_words(interval)})"
        )
    worst = worst_images(winner, winner.image_scores(gate.metric))
    return interval_verdict("floor", verdict, text, gate, interval, gate.at_least, worst)


def class_floor(gate: ClassFloorGate, case: Case) -> GateVerdict:
    """Require that the lower bound of each class reaches its floor.

    The gate passes only if all classes pass, so it needs no correction for their number.

    Raises:
        ConfigError: the gate names a class that does not exist.
    """
    winner = case.winner
    if unknown := sorted(gate.classes.keys() - set(winner.classes)):
        raise ConfigError(
            "no such class",
            where="params.yaml: gates.class_floor.classes",
            found=unknown[0],
            expected=" or ".join(winner.classes),
            fix="use a class of the dataset",
        )
    rows = _class_rows(gate, case)
    if not rows:
        return plain_verdict("class_floor", "pass", "no class has a floor", gate, metric=f"{gate.ratio}.class")
    part, interval = rows[0]
    metric = _class_metric(gate.ratio, part.name)
    parts = [row[0] for row in rows]
    text = _class_words(
        f"{winner.candidate}'s test {describe_metric(metric)}", parts, confidence_words(interval), basis_words(interval)
    )
    worst = worst_images(winner, winner.image_scores(metric))
    return interval_verdict(
        "class_floor", part.verdict, text, gate, interval, part.threshold, worst, metric=metric, parts=parts
    )


def _class_rows(gate: ClassFloorGate, case: Case) -> list[tuple[Part, Interval]]:
    """Judge each class. The first row decides: it has the worst verdict and, among those, the score furthest below its floor."""
    winner = case.winner
    present = winner.tally[:, 1] > 0
    if is_instance(gate.ratio) and winner.instances is not None:
        present = winner.instances[:, 0, 1] > 0
    rows = []
    for index, name in enumerate(winner.classes):
        least = gate.classes.get(name, gate.at_least)
        # A background has no instances, and other classes may have none either.
        if least == 0 or (is_instance(gate.ratio) and name not in gate.classes and not present[:, index].any()):
            continue
        interval = interval_of(_class_metric(gate.ratio, name), winner, case.params)
        images = int(np.count_nonzero(present[:, index]))
        rows.append((interval_part(name, verdict_above(interval, least), images, interval, least), interval))
    return sorted(rows, key=lambda row: (WORST_FIRST[row[0].verdict], _margin(row[0])))


def _margin(part: Part) -> float:
    """Return how far a class is above its floor; a class without a bound sorts first."""
    low = part.estimate if part.verdict == "fail" else part.low
    return -np.inf if low is None else low - part.threshold


def _class_metric(ratio: str, name: str) -> str:
    return class_metric(ratio, name) if is_instance(ratio) else f"{ratio}.class.{name}"


def _class_words(subject: str, parts: list[Part], confidence: str, basis: str) -> str:
    first = parts[0]
    if first.estimate is None:
        return f"{subject} is undefined: no test image has the class"
    value, least = distinct_numbers(first.estimate, first.threshold)
    if first.verdict == "pass":
        return (
            f"every class reaches its floor; {subject} is closest to it: {value}, at least {first.low:.3f} with "
            f"{confidence} confidence, above the floor of {least}"
        )
    same = [
        f"{p.name} ({'no score' if p.estimate is None else f'{p.estimate:.3f}'})"
        for p in parts[1:]
        if p.verdict == first.verdict
    ]
    more = f"; the same holds for {listed(same)}" if same else ""
    if first.verdict == "fail":
        return f"{subject} is {value} on {first.images} images, below its floor of {least}{more}"
    low = NO_BOUND if first.low is None else f"it may be as low as {first.low:.3f}"
    return f"{subject} is {value}, above its floor of {least}, but {low} ({basis}; the class is in {first.images} images){more}"


def calibration(gate: CalibrationGate, case: Case) -> GateVerdict:
    """Require that the upper bound of the expected calibration error is at most `at_most`."""
    winner = case.winner
    interval = calibration_interval(winner, case.params)
    fields: dict[str, Any] = {"metric": "calibration.ece", "side": "most"}
    if interval is None or winner.reliability is None or np.isnan(interval.estimate):
        text = f"the calibration of {winner.candidate} was not measured; `dvc repro evaluate@{winner.candidate}` measures it"
        return plain_verdict("calibration", "cannot tell", text, gate, **fields)
    verdict = verdict_below(interval, gate.at_most)
    value, most = distinct_numbers(interval.estimate, gate.at_most)
    text = f"{winner.candidate}'s expected calibration error on the test images is {value}"
    if verdict == "fail":
        text += f", above the limit of {most}"
    elif verdict == "pass":
        text += (
            f", at most {interval.high:.3f} with {confidence_words(interval)} confidence, within the limit of {most}"
        )
    elif np.isnan(interval.high):
        text += f", within the limit of {most}, but {NO_BOUND}"
    else:
        text += f", within the limit of {most}, but it may be as high as {interval.high:.3f} ({basis_words(interval)})"
    count, confidence, hits = np.moveaxis(winner.reliability, 1, 0)
    with np.errstate(invalid="ignore"):
        image_errors = np.abs(confidence - hits).sum(1) / count.sum(1)
    worst = worst_images(winner, -image_errors)
    return interval_verdict("calibration", verdict, text, gate, interval, gate.at_most, worst, **fields)


def size(gate: SizeGate, case: Case) -> GateVerdict:
    """Require that the weights have at most `at_most_mb` megabytes (10^6 bytes)."""
    candidate = case.winner.candidate
    fields: dict[str, Any] = {"metric": "model.megabytes", "side": "most", "threshold": gate.at_most_mb}
    if case.megabytes is None:
        text = f"the size of {candidate} is not known; `dvc repro evaluate@{candidate}` measures it"
        return plain_verdict("size", "cannot tell", text, gate, **fields)
    fits = case.megabytes <= gate.at_most_mb
    text = (
        f"{candidate}'s weights have {case.megabytes:.3f} MB, {'within' if fits else 'above'} the limit of "
        f"{gate.at_most_mb:g} MB"
    )
    return plain_verdict("size", "pass" if fits else "fail", text, gate, estimate=case.megabytes, **fields)


def data(gate: DataGate, case: Case) -> GateVerdict:
    """Require that the data passed validation, with at most `max_warnings` warnings, and that no quantity has shifted too much.

    A quantity has shifted too much if its population stability index is above `max_drift` and the shift is significant
    (`MAX_DRIFT_P_VALUE`): with few images, the index is often large by chance.
    """
    if case.findings is None:
        text = "the data were not validated; `dvc repro validate` does this"
        return plain_verdict("data", "cannot tell", text, gate)
    warnings = [finding for finding in case.findings.findings if finding.severity == "warning"]
    shifts = sorted(case.findings.drift, key=lambda drift: -drift.psi)
    count_words = f"{len(warnings)} warning{'' if len(warnings) == 1 else 's'}"
    errors = []
    if not case.findings.passed:
        errors.append("the data did not pass validation")
    if gate.max_warnings is not None and len(warnings) > gate.max_warnings:
        names = listed(sorted({warning.expectation for warning in warnings}))
        errors.append(f"validation found {count_words} ({names}), and {gate.max_warnings} are allowed")
    limit = np.inf if gate.max_drift is None else gate.max_drift
    significant = [drift for drift in shifts if drift.p_value * len(shifts) < MAX_DRIFT_P_VALUE]
    if too_far := [f"{drift.quantity} ({drift.psi:.3f})" for drift in significant if drift.psi > limit]:
        errors.append(
            f"population stability index, compared with the production data, above {limit:g}: {listed(too_far)}"
        )
    fields: dict[str, Any] = {"metric": "data"}
    text = f"the data passed validation with {count_words}"
    if shifts:
        largest = shifts[0]
        text += (
            f"; the largest shift from the production data is in {largest.quantity} (stability index {largest.psi:.3f}"
        )
        chance = ", and this may be due to chance" if largest.psi > limit else ""
        text += ")" if gate.max_drift is None else f", {gate.max_drift:g} is allowed{chance})"
        if gate.max_drift is not None:
            fields = {"metric": "data.psi", "side": "most", "estimate": largest.psi, "threshold": gate.max_drift}
    return plain_verdict("data", "fail" if errors else "pass", "; ".join(errors) or text, gate, **fields)


def image_count(gate: ImageCountGate, case: Case) -> GateVerdict:
    """Require that every class is in at least `at_least` test images."""
    images = (case.winner.tally[:, 1] > 0).sum(0)
    counts = sorted(zip(images.tolist(), case.winner.classes, strict=True))
    parts = [
        Part(name=name, verdict="pass" if n >= gate.at_least else "fail", images=n, estimate=n, threshold=gate.at_least)
        for n, name in counts
    ]
    rare = [f"{name} ({n})" for n, name in counts if n < gate.at_least]
    least, rarest = counts[0]
    if rare:
        text = f"fewer than {gate.at_least} test images show {listed(rare)}, too few for reliable scores"
    else:
        text = f"every class is in at least {gate.at_least} test images; the rarest, {rarest}, is in {least}"
    fields: dict[str, Any] = {
        "metric": "images.class",
        "estimate": least,
        "threshold": gate.at_least,
        "parts": parts,
    }
    return plain_verdict("test_size", "fail" if rare else "pass", text, gate, **fields)

"""The robustness gate: how far corrupted images may lower the winner's score."""

from __future__ import annotations

from typing import Any

import numpy as np

from segpipe.config import RobustnessGate
from segpipe.evaluation.metric_lookup import describe_metric
from segpipe.evaluation.metrics_file import RobustnessScores
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
    verdict_below,
)
from segpipe.gates.verdicts import WORST_FIRST, GateVerdict, Part
from segpipe.metrics import MAIN_METRIC
from segpipe.words import listed


def robustness(gate: RobustnessGate, case: Case) -> GateVerdict:
    """Require, for each corruption, that the upper bound of the drop of the score is at most `at_most`.

    The gate passes only if all corruptions pass, so it needs no correction for their number.
    """
    fields: dict[str, Any] = {"metric": "robustness.drop", "side": "most"}
    measured = case.robustness
    corruptions = measured.by if measured else {}
    by_corruption = {name: rows[gate.severity] for name, rows in corruptions.items() if gate.severity in rows}
    missing = [name for name in gate.corruptions if name not in by_corruption]
    candidate = case.winner.candidate
    if measured is None or missing or not by_corruption:
        images = listed(missing) if missing and by_corruption else "corrupted images"
        text = (
            f"{candidate} was not scored on {gate.severity} {images}; `evaluate.robustness: "
            f"{'quick' if gate.severity == 'medium' else 'full'}` enables this, for corruptions that the images allow"
        )
        return plain_verdict("robustness", "cannot tell", text, gate, **fields)
    rows = []
    for corruption in gate.corruptions or by_corruption:
        row = by_corruption[corruption]
        interval = Interval(
            row.drop,
            np.nan if row.low is None else row.low,
            np.nan if row.high is None else row.high,
            case.params.confidence,
            measured.units,
        )
        verdict = verdict_below(interval, gate.at_most)
        rows.append((interval_part(corruption, verdict, measured.images, interval, gate.at_most), interval))
    rows.sort(key=lambda row: (WORST_FIRST[row[0].verdict], -_upper_bound(row[1])))
    part, interval = rows[0]
    failed = [row[0].name for row in rows[1:] if row[0].verdict == "fail"]
    text = _drop_words(gate, candidate, measured, part, interval, failed)
    parts = [row[0] for row in rows]
    return interval_verdict("robustness", part.verdict, text, gate, interval, gate.at_most, [], parts=parts, **fields)


def _drop_words(
    gate: RobustnessGate,
    candidate: str,
    measured: RobustnessScores,
    part: Part,
    interval: Interval,
    others: list[str],
) -> str:
    """Phrase the drop for the corruption that decides; `others` are further corruptions that fail."""
    value, most = distinct_numbers(interval.estimate, gate.at_most)
    drop = (
        f"{gate.severity} {part.name} lowers {candidate}'s test {describe_metric(MAIN_METRIC)} of {measured.score:.3f} "
        f"by {value} on {measured.images} images"
    )
    if part.verdict == "fail":
        return f"{drop}, more than {most}" + (f"; the same holds for {listed(others)}" if others else "")
    if part.verdict == "pass":
        return (
            f"no corruption lowers the score too much; {drop}, the largest drop: at most {interval.high:.3f} with "
            f"{confidence_words(interval)} confidence, and {most} is allowed"
        )
    if np.isnan(interval.high):
        return f"{drop}, and {most} is allowed, but {NO_BOUND}"
    return f"{drop}, and {most} is allowed, but it may be as much as {interval.high:.3f} ({basis_words(interval)})"


def _upper_bound(interval: Interval) -> float:
    return interval.estimate if np.isnan(interval.high) else interval.high

"""Making verdicts: where an interval lies beside a threshold, and the words of the sentence."""

from __future__ import annotations

from typing import Any

import numpy as np

from segpipe.config import Gate
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.statistics import Interval
from segpipe.gates.verdicts import GateVerdict, Verdict
from segpipe.metrics import Values

_NAMED = 3
"""Images that a verdict names."""


def verdict_above(found: Interval, threshold: float, strict: bool = False) -> Verdict:
    """Where an interval lies beside a threshold that is to be reached; NaN compares as neither."""
    if found.low > threshold or (not strict and found.low == threshold):
        return "pass"
    if found.estimate < threshold or (strict and found.estimate == threshold):
        return "fail"
    return "cannot tell"


def verdict_below(found: Interval, threshold: float) -> Verdict:
    """Where an interval lies beside a threshold that is not to be passed; NaN compares as neither."""
    if found.high <= threshold:
        return "pass"
    return "fail" if found.estimate > threshold else "cannot tell"


def interval_verdict(
    name: str, verdict: Verdict, said: str, gate: Gate, found: Interval, threshold: float, worst: list[str], **more: Any
) -> GateVerdict:
    """A verdict with its numbers; of one that is not pass, the sentence names the worst images."""
    worst_words = f"; worst on {', '.join(worst)}" if worst and verdict != "pass" else ""
    values = {"reason": gate.reason, "metric": getattr(gate, "metric", name)} | more  # type: ignore[attr-defined]
    return GateVerdict(
        name=name,
        verdict=verdict,
        sentence=f"{verdict.capitalize()}: {said}{worst_words}.",
        estimate=none_if_nan(found.estimate),
        low=none_if_nan(found.low),
        high=none_if_nan(found.high),
        threshold=threshold,
        confidence=round(found.one_sided, 6),
        worst=worst,
        **values,
    )


def plain_verdict(name: str, verdict: Verdict, said: str, gate: Gate, **more: Any) -> GateVerdict:
    """A verdict that rests on no interval."""
    values = {"reason": gate.reason, "metric": getattr(gate, "metric", name)} | more  # type: ignore[attr-defined]
    return GateVerdict(name=name, verdict=verdict, sentence=f"{verdict.capitalize()}: {said}.", **values)


def worst_images(scores: Scores, values: Values) -> list[str]:
    """The keys of the images with the lowest values; NaN is left out."""
    order = np.argsort(values, kind="stable")[: int((~np.isnan(values)).sum())]
    return [scores.keys[i] for i in order[:_NAMED]]


def confidence_words(found: Interval) -> str:
    """The confidence of a bound: "97.5 %"."""
    return f"{100 * found.one_sided:.4g} %"


def basis_words(found: Interval) -> str:
    """What a bound rests on."""
    return f"{confidence_words(found)} confidence, {found.units} images or groups"


def bound_words(low: float) -> str:
    """The lower bound of a difference in words."""
    if low == 0:
        return "not below"
    return f"at least {low:.3f} above" if low > 0 else f"up to {-low:.3f} below"


def difference_words(estimate: float) -> str:
    """A difference in words."""
    if estimate == 0:
        return "no different from"
    return f"{abs(estimate):.3f} {'above' if estimate > 0 else 'below'}"


def distinct_numbers(value: float, threshold: float) -> tuple[str, str]:
    """Both with three digits, or with as many as it takes to tell them apart."""
    digits = next((d for d in range(3, 9) if round(value, d) != round(threshold, d)), 3)
    return f"{value:.{digits}f}", f"{threshold:.{digits}f}"


def none_if_nan(value: float) -> float | None:
    """None for NaN, which is no JSON."""
    return None if np.isnan(value) else value

"""Build verdicts: compare an interval with a threshold, and phrase the result."""

from __future__ import annotations

from typing import Any

import numpy as np

from segpipe.config import Gate
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.statistics import Interval
from segpipe.gates.verdicts import GateVerdict, Part, Verdict
from segpipe.metrics import Values

_MAX_WORST_IMAGES = 3
"""Largest number of images that a verdict names."""

NO_BOUND = "a single image gives no confidence bound"


def verdict_above(interval: Interval, threshold: float, strict: bool = False) -> Verdict:
    """Judge an interval by a threshold that must be reached.

    Args:
        interval: the score with its bounds; NaN gives "cannot tell".
        threshold: what the lower bound must reach.
        strict: the lower bound must be above the threshold; being equal is not enough.

    Returns:
        "pass" if the lower bound reaches the threshold, "fail" if the score itself does not, else "cannot tell".
    """
    if interval.low > threshold or (not strict and interval.low == threshold):
        return "pass"
    if interval.estimate < threshold or (strict and interval.estimate == threshold):
        return "fail"
    return "cannot tell"


def verdict_below(interval: Interval, threshold: float) -> Verdict:
    """Judge an interval by a threshold that must not be exceeded.

    Args:
        interval: the score with its bounds; NaN gives "cannot tell".
        threshold: what the upper bound must not exceed.

    Returns:
        "pass" if the upper bound is within the threshold, "fail" if the score itself exceeds it, else "cannot tell".
    """
    if interval.high <= threshold:
        return "pass"
    return "fail" if interval.estimate > threshold else "cannot tell"


def interval_verdict(
    name: str,
    verdict: Verdict,
    text: str,
    gate: Gate,
    interval: Interval,
    threshold: float,
    worst: list[str],
    **fields: Any,
) -> GateVerdict:
    """Build the verdict of a gate that rests on a confidence interval.

    Args:
        name: name of the gate.
        verdict: the verdict.
        text: the sentence without the verdict and the final full stop.
        gate: settings of the gate.
        interval: the score that decides.
        threshold: what it was compared with.
        worst: keys of the worst images; the sentence names them unless the verdict is pass.
        fields: further fields of `GateVerdict`.
    """
    worst_words = f"; worst on {', '.join(worst)}" if worst and verdict != "pass" else ""
    bounds = {
        "estimate": none_if_nan(interval.estimate),
        "low": none_if_nan(interval.low),
        "high": none_if_nan(interval.high),
        "threshold": threshold,
        "confidence": round(interval.one_sided, 6),
        "worst": worst,
    }
    return plain_verdict(name, verdict, f"{text}{worst_words}", gate, **(bounds | fields))


def plain_verdict(name: str, verdict: Verdict, text: str, gate: Gate, **fields: Any) -> GateVerdict:
    """Build the verdict of a gate that does not rest on an interval.

    Args:
        name: name of the gate.
        verdict: the verdict.
        text: the sentence without the verdict and the final full stop.
        gate: settings of the gate.
        fields: further fields of `GateVerdict`.
    """
    values = {"reason": gate.reason, "metric": getattr(gate, "metric", name)} | fields  # type: ignore[attr-defined]
    return GateVerdict(name=name, verdict=verdict, sentence=f"{verdict.capitalize()}: {text}.", **values)


def interval_part(
    name: str, verdict: Verdict, images: int, interval: Interval, threshold: float, **fields: Any
) -> Part:
    """Build the verdict on one class, slice or corruption.

    Args:
        name: the class, slice or corruption.
        verdict: the verdict.
        images: number of its test images.
        interval: its score.
        threshold: what the score was compared with.
        fields: further fields of `Part`.
    """
    return Part(
        name=name,
        verdict=verdict,
        images=images,
        estimate=none_if_nan(interval.estimate),
        low=none_if_nan(interval.low),
        high=none_if_nan(interval.high),
        threshold=threshold,
        **fields,
    )


def worst_images(scores: Scores, values: Values) -> list[str]:
    """Return the keys of the images with the lowest values, without those whose value is NaN."""
    order = np.argsort(values, kind="stable")[: int((~np.isnan(values)).sum())]
    return [scores.keys[i] for i in order[:_MAX_WORST_IMAGES]]


def confidence_words(interval: Interval) -> str:
    """Phrase the confidence of a one-sided bound: "97.5 %"."""
    return f"{100 * interval.one_sided:.4g} %"


def basis_words(interval: Interval) -> str:
    """Phrase the basis of a bound: "97.5 % confidence, 40 images or groups"."""
    return f"{confidence_words(interval)} confidence, {interval.units} images or groups"


def bound_words(low: float) -> str:
    """Phrase the lower bound of a difference: "at least 0.010 above", "up to 0.010 below"."""
    if low == 0:
        return "not below"
    return f"at least {low:.3f} above" if low > 0 else f"up to {-low:.3f} below"


def difference_words(estimate: float) -> str:
    """Phrase a difference: "0.010 above", "0.010 below", "equal to"."""
    if estimate == 0:
        return "equal to"
    return f"{abs(estimate):.3f} {'above' if estimate > 0 else 'below'}"


def distinct_numbers(value: float, threshold: float) -> tuple[str, str]:
    """Format two numbers with three digits, or with as many more as it takes for them to differ."""
    digits = next((d for d in range(3, 9) if round(value, d) != round(threshold, d)), 3)
    return f"{value:.{digits}f}", f"{threshold:.{digits}f}"


def none_if_nan(value: float) -> float | None:
    """Return None for NaN, which JSON cannot represent, and any other value unchanged."""
    return None if np.isnan(value) else value

"""What a gate says: numbers, one sentence, and the words that sentences are made of.

A verdict is `pass` where the bound is on the right side of the threshold, `fail` where the score itself is not, and
`cannot tell` in between: the score would do, but on so few images it may be luck.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from segpipe.config import EvaluateParams, Gate
from segpipe.evaluation.instance_metrics import is_instance, words
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.statistics import Interval
from segpipe.metrics import Values

if TYPE_CHECKING:
    from segpipe.inference.segmenter import Segmenter

Verdict = Literal["pass", "fail", "cannot tell"]

WORST_FIRST: dict[Verdict, int] = {"fail": 0, "cannot tell": 1, "pass": 2}
"""Of parts, the worst verdict decides: the lowest of these."""

_NAMED = 3
"""Images that a verdict names."""


class Part(BaseModel):
    """What a gate says of one class or one slice. `estimate`, `low`, `high` as in `GateVerdict`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    verdict: Verdict
    images: int
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    threshold: float
    p_value: float | None = None
    """Of a difference as large as this between models that are alike, corrected for the number of slices (Holm)."""
    detectable: float | None = None
    """The smallest true difference that these images would show four times in five."""


class WaiverNote(BaseModel):
    """The waiver of a gate that did not pass. expired: it ended before the day of judgement, and so has no effect."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    reason: str
    until: date
    expired: bool


class GateVerdict(BaseModel):
    """What one gate says, in numbers and in one sentence.

    `estimate`, `low` and `high` are the score (floor, class_floor, calibration ...), or the winner's score less the other's
    (baseline, champion, slice), and are None where it does not exist; of a gate with parts, those of the part that decides.
    `worst` names the images on which the winner does worst, or worst beside the other.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    verdict: Verdict
    sentence: str
    reason: str
    """Why there is this gate."""
    metric: str
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    threshold: float | None = None
    side: Literal["least", "most"] = "least"
    """Whether the threshold is to be reached, or not to be passed."""
    confidence: float | None = None
    """Of the bound, one-sided."""
    p_value: float | None = None
    """Of a difference as large as this between two models that are alike; None where no two are compared."""
    detectable: float | None = None
    """The smallest true difference that these images would show four times in five; None where no two are compared."""
    worst: list[str] = []
    parts: list[Part] = []
    """Verdicts of single classes or slices, where the gate is about each of them."""
    mode: Literal["block", "warn"] = "block"
    waiver: WaiverNote | None = None
    blocks: bool
    """Whether this verdict stands in the way of a release."""

    @model_validator(mode="before")
    @classmethod
    def _blocks_unless_it_passes(cls, content: Any) -> Any:
        """Before there were modes and waivers, every verdict but pass did."""
        if isinstance(content, dict) and "verdict" in content:
            return {"blocks": content["verdict"] != "pass"} | content
        return content


@dataclass(frozen=True)
class Champion:
    """What serves now, scored on today's test images; `scores` is None where that can't be done, and `why_not` says why."""

    version: str
    scores: Scores | None
    why_not: str | None = None
    same_model: bool = False
    """Whether the winner is this very model, trained again from the same data by the same plan."""
    segmenter: Segmenter | None = None
    """The model itself, where it could be scored."""


@dataclass(frozen=True)
class Case:
    """What gates judge by: the winner, what it is held against, and what is known beside scores.

    megabytes: of the winner's weights (10^6 bytes). findings: reports/validation/findings.json. robustness: what
    `segpipe.evaluation.robustness.drops` measured of the winner. Each None where unknown.
    """

    params: EvaluateParams
    winner: Scores
    baseline: Scores | None = None
    champion: Champion | None = None
    megabytes: float | None = None
    findings: dict[str, Any] | None = None
    robustness: dict[str, Any] | None = None


def place(found: Interval, threshold: float, strict: bool = False) -> Verdict:
    """Where an interval lies beside a threshold that is to be reached; NaN compares as neither."""
    if found.low > threshold or (not strict and found.low == threshold):
        return "pass"
    if found.estimate < threshold or (strict and found.estimate == threshold):
        return "fail"
    return "cannot tell"


def place_below(found: Interval, threshold: float) -> Verdict:
    """Where an interval lies beside a threshold that is not to be passed; NaN compares as neither."""
    if found.high <= threshold:
        return "pass"
    return "fail" if found.estimate > threshold else "cannot tell"


def made(
    name: str, verdict: Verdict, said: str, gate: Gate, found: Interval, threshold: float, worst: list[str], **more: Any
) -> GateVerdict:
    """A verdict with its numbers; of one that is not pass, the sentence names the worst images."""
    worst_words = f"; worst on {', '.join(worst)}" if worst and verdict != "pass" else ""
    values = {"reason": gate.reason, "metric": getattr(gate, "metric", name)} | more  # type: ignore[attr-defined]
    return GateVerdict(
        name=name,
        verdict=verdict,
        sentence=f"{verdict.capitalize()}: {said}{worst_words}.",
        estimate=known(found.estimate),
        low=known(found.low),
        high=known(found.high),
        threshold=threshold,
        confidence=round(found.one_sided, 6),
        worst=worst,
        **values,
    )


def without(name: str, verdict: Verdict, said: str, gate: Gate, **more: Any) -> GateVerdict:
    """A verdict that rests on no interval."""
    values = {"reason": gate.reason, "metric": getattr(gate, "metric", name)} | more  # type: ignore[attr-defined]
    return GateVerdict(name=name, verdict=verdict, sentence=f"{verdict.capitalize()}: {said}.", **values)


def lowest(scores: Scores, values: Values) -> list[str]:
    """The keys of the images with the lowest values; NaN is left out."""
    order = np.argsort(values, kind="stable")[: int((~np.isnan(values)).sum())]
    return [scores.keys[i] for i in order[:_NAMED]]


def describe(name: str) -> str:
    """A metric's name in words: `iou.dataset.macro` -> "IoU (macro, dataset)"."""
    if name == "accuracy.pixel":
        return "pixel accuracy"
    if is_instance(name):
        return words(name)
    ratio, scope, rest = name.split(".", 2)
    called = {"iou": "IoU", "dice": "Dice", "mcc": "Matthews correlation"}.get(ratio, ratio)
    if scope == "class":
        return f"{called} of class {rest}"
    if scope == "image" and rest.startswith(("class.", "class_empty1.")):
        form, class_name = rest.split(".", 1)
        return f"{called} of class {class_name} ({'image, absence counts 1' if form.endswith('empty1') else 'image'})"
    return f"{called} ({rest.replace('_empty1', ', absence counts 1')}, {scope})"


def sure(found: Interval) -> str:
    """The confidence of a bound: "97.5 %"."""
    return f"{100 * found.one_sided:.4g} %"


def basis(found: Interval) -> str:
    """What a bound rests on."""
    return f"{sure(found)} confidence, {found.units} images or groups"


def bound(low: float) -> str:
    """The lower bound of a difference in words."""
    if low == 0:
        return "not below"
    return f"at least {low:.3f} above" if low > 0 else f"up to {-low:.3f} below"


def apart(estimate: float) -> str:
    """A difference in words."""
    if estimate == 0:
        return "no different from"
    return f"{abs(estimate):.3f} {'above' if estimate > 0 else 'below'}"


def numbers(value: float, threshold: float) -> tuple[str, str]:
    """Both with three digits, or with as many as it takes to tell them apart."""
    digits = next((d for d in range(3, 9) if round(value, d) != round(threshold, d)), 3)
    return f"{value:.{digits}f}", f"{threshold:.{digits}f}"


def known(value: float) -> float | None:
    """None for NaN, which is no JSON."""
    return None if np.isnan(value) else value

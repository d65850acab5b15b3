"""Gates: what the winner must prove before it is released. Each compares a confidence bound, not a point.

A verdict is `pass` where the bound is on the right side of the threshold, `fail` where the score itself is not, and
`cannot tell` in between: the score would do, but on so few images it may be luck. Only `pass` lets a model through.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from segpipe.config import BaselineGate, ChampionGate, EvaluateParams, FloorGate, GateParams
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.statistics import Interval, compare, interval
from segpipe.metrics import Values, metric

Verdict = Literal["pass", "fail", "cannot tell"]

_NAMED = 3
"""Images that a verdict names."""


class GateVerdict(BaseModel):
    """What one gate says, in numbers and in one sentence.

    `estimate`, `low` and `high` are the score (floor), or the winner's score less the other's (baseline, champion), and are
    None where it does not exist. `worst` names the images on which the winner does worst, or worst beside the other.
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
    confidence: float | None = None
    """Of `low` being a bound, one-sided."""
    p_value: float | None = None
    """Of a difference as large as this between two models that are alike; None where no two are compared."""
    detectable: float | None = None
    """The smallest true difference that these images would show four times in five; None where no two are compared."""
    worst: list[str] = []


@dataclass(frozen=True)
class Champion:
    """What serves now, scored on today's test images; `scores` is None where that can't be done, and `why_not` says why."""

    version: str
    scores: Scores | None
    why_not: str | None = None
    same_model: bool = False
    """Whether the winner is this very model, trained again from the same data by the same plan."""


def judge(
    gates: GateParams, params: EvaluateParams, winner: Scores, baseline: Scores | None, champion: Champion | None
) -> list[GateVerdict]:
    """The verdict of every gate that is on, in the order floor, baseline, champion.

    Raises ConfigError where a gate names a metric that there is not, and DataError where models were scored on different images.
    """
    verdicts = []
    if gates.floor:
        verdicts.append(_floor(gates.floor, params, winner))
    if gates.baseline:
        verdicts.append(_baseline(gates.baseline, params, winner, baseline))
    if gates.champion:
        verdicts.append(_champion(gates.champion, params, winner, champion))
    return verdicts


def describe(name: str) -> str:
    """A metric's name in words: `iou.dataset.macro` -> "IoU (macro, dataset)"."""
    if name == "accuracy.pixel":
        return "pixel accuracy"
    ratio, scope, rest = name.split(".", 2)
    words = {"iou": "IoU", "dice": "Dice", "mcc": "Matthews correlation"}.get(ratio, ratio)
    if scope == "class":
        return f"{words} of class {rest}"
    if scope == "image" and rest.startswith(("class.", "class_empty1.")):
        form, class_name = rest.split(".", 1)
        return f"{words} of class {class_name} ({'image, absence counts 1' if form.endswith('empty1') else 'image'})"
    return f"{words} ({rest.replace('_empty1', ', absence counts 1')}, {scope})"


def _floor(gate: FloorGate, params: EvaluateParams, winner: Scores) -> GateVerdict:
    chosen = metric(gate.metric, winner.classes)
    found = interval(chosen, winner.tally, winner.groups, params.resamples, params.confidence)
    verdict = _verdict(found, gate.at_least, strict=False)
    value, floor = _numbers(found.estimate, gate.at_least)
    said = f"{winner.candidate}'s test {describe(gate.metric)} "
    if np.isnan(found.estimate):
        said += "does not exist: nothing in the test images counts for it"
    elif verdict == "pass":
        said += f"is {value}, at least {found.low:.3f} with {_sure(found)} confidence, above the floor of {floor}"
    elif verdict == "fail":
        said += f"is {value}, below the floor of {floor}"
    elif np.isnan(found.low):
        said += f"is {value}, above the floor of {floor}, but a single image can't say how sure that is"
    else:
        said += f"is {value}, above the floor of {floor}, but it may be as low as {found.low:.3f} ({_basis(found)})"
    return _made("floor", verdict, said, gate, found, gate.at_least, _lowest(winner, winner.of_images(gate.metric)))


def _baseline(gate: BaselineGate, params: EvaluateParams, winner: Scores, baseline: Scores | None) -> GateVerdict:
    metric(gate.metric, winner.classes)
    if baseline is None:
        said = "no classical candidate was evaluated; add `kmeans: {family: kmeans}` to `candidates`, or set `gates.baseline: null`"
        return _without("baseline", "cannot tell", said, gate)
    return _against(
        "baseline", gate, params, winner, baseline, f"the baseline {baseline.candidate}", gate.margin, strict=True
    )


def _champion(gate: ChampionGate, params: EvaluateParams, winner: Scores, champion: Champion | None) -> GateVerdict:
    metric(gate.metric, winner.classes)
    if champion is None:
        return _without("champion", "pass", "no champion yet", gate)
    if champion.scores is None:
        return _without("champion", "cannot tell", f"{champion.version} can't be compared: {champion.why_not}", gate)
    name = f"the champion {champion.version}"
    after = "; it is the same model, trained again from the same data by the same plan" if champion.same_model else ""
    return _against("champion", gate, params, winner, champion.scores, name, -gate.margin, strict=False, after=after)


def _against(
    name: str,
    gate: BaselineGate | ChampionGate,
    params: EvaluateParams,
    winner: Scores,
    other: Scores,
    called: str,
    threshold: float,
    strict: bool,
    after: str = "",
) -> GateVerdict:
    """The paired difference of two models on the same images, held against a threshold."""
    other = winner.aligned(other)
    chosen = metric(gate.metric, winner.classes)
    compared = compare(chosen, winner.tally, other.tally, winner.groups, params.resamples, params.confidence)
    found = compared.difference
    verdict = _verdict(found, threshold, strict)
    said = f"{winner.candidate}'s test {describe(gate.metric)} "
    if np.isnan(found.estimate):
        said += f"can't be compared with that of {called}: nothing in the test images counts for it"
    else:
        ours, theirs = (chosen.value(scores.tally) for scores in (winner, other))
        said += f"is {ours:.3f}, {_apart(found.estimate)} {called} ({theirs:.3f}) on the same images"
        if np.isnan(found.low):
            said += ", but a single image can't say how sure that is"
        elif verdict == "pass":
            said += f"; with {_sure(found)} confidence it is {_bound(found.low)}"
        elif verdict == "cannot tell":
            said += f", but it may be {_bound(found.low)} ({_basis(found)}, enough to see a difference of "
            said += f"{compared.detectable:.3f} four times in five)"
        if threshold:
            said += f", and {abs(threshold):.3f} {'above is asked for' if threshold > 0 else 'below is allowed'}"
    said += after
    behind = winner.of_images(gate.metric) - other.of_images(gate.metric)
    made = _made(name, verdict, said, gate, found, threshold, _lowest(winner, np.where(behind < 0, behind, np.nan)))
    extra = {"p_value": _known(compared.p_value), "detectable": _known(compared.detectable)}
    return made.model_copy(update=extra)


def _verdict(found: Interval, threshold: float, strict: bool) -> Verdict:
    """Where an interval lies beside a threshold; NaN compares as neither."""
    if found.low > threshold or (not strict and found.low == threshold):
        return "pass"
    if found.estimate < threshold or (strict and found.estimate == threshold):
        return "fail"
    return "cannot tell"


def _made(
    name: str,
    verdict: Verdict,
    said: str,
    gate: FloorGate | BaselineGate | ChampionGate,
    found: Interval,
    threshold: float,
    worst: list[str],
) -> GateVerdict:
    worst_words = f"; worst on {', '.join(worst)}" if worst and verdict != "pass" else ""
    return GateVerdict(
        name=name, verdict=verdict, sentence=f"{verdict.capitalize()}: {said}{worst_words}.", reason=gate.reason,
        metric=gate.metric, estimate=_known(found.estimate), low=_known(found.low), high=_known(found.high),
        threshold=threshold, confidence=round(found.one_sided, 6), worst=worst,
    )  # fmt: skip


def _without(name: str, verdict: Verdict, said: str, gate: BaselineGate | ChampionGate) -> GateVerdict:
    return GateVerdict(
        name=name, verdict=verdict, sentence=f"{verdict.capitalize()}: {said}.", reason=gate.reason, metric=gate.metric
    )


def _lowest(scores: Scores, values: Values) -> list[str]:
    """The keys of the images with the lowest values; NaN is left out."""
    order = np.argsort(values, kind="stable")[: int((~np.isnan(values)).sum())]
    return [scores.keys[i] for i in order[:_NAMED]]


def _sure(found: Interval) -> str:
    return f"{100 * found.one_sided:.4g} %"


def _basis(found: Interval) -> str:
    return f"{_sure(found)} confidence, {found.units} images or groups"


def _bound(low: float) -> str:
    if low == 0:
        return "not below"
    return f"at least {low:.3f} above" if low > 0 else f"up to {-low:.3f} below"


def _apart(estimate: float) -> str:
    if estimate == 0:
        return "no different from"
    return f"{abs(estimate):.3f} {'above' if estimate > 0 else 'below'}"


def _numbers(value: float, threshold: float) -> tuple[str, str]:
    """Both with three digits, or with as many as it takes to tell them apart."""
    digits = next((d for d in range(3, 9) if round(value, d) != round(threshold, d)), 3)
    return f"{value:.{digits}f}", f"{threshold:.{digits}f}"


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value

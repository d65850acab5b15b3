"""Gates in which the winner is held against another model on the same images: baseline, champion, and the champion by slices."""

from __future__ import annotations

import numpy as np

from segpipe.config import BaselineGate, ChampionGate, SliceGate
from segpipe.evaluation.instance_metrics import is_instance
from segpipe.evaluation.metric_lookup import compare_on, describe_metric
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.slices import SliceComparison, compare_slices
from segpipe.gates.case import Case
from segpipe.gates.verdict_building import (
    basis_words,
    bound_words,
    confidence_words,
    difference_words,
    interval_verdict,
    none_if_nan,
    plain_verdict,
    verdict_above,
    worst_images,
)
from segpipe.gates.verdicts import WORST_FIRST, GateVerdict, Part, Verdict


def baseline(gate: BaselineGate, case: Case) -> GateVerdict:
    """The lower bound of the lead over the best classical candidate is above `margin`."""
    case.winner.statistic(gate.metric)
    other = case.baseline
    if other is None:
        said = "no classical candidate was evaluated; add `kmeans: {family: kmeans}` to `candidates`, or set `gates.baseline: null`"
        return plain_verdict("baseline", "cannot tell", said, gate)
    return _against("baseline", gate, case, other, f"the baseline {other.candidate}", gate.margin, strict=True)


def champion(gate: ChampionGate, case: Case) -> GateVerdict:
    """The lower bound of the difference from what serves is above -margin, or above 0 where `superior` is asked for."""
    if (undecided := _beside_nothing("champion", gate, case)) is not None:
        return undecided
    live = case.champion
    assert live is not None and live.scores is not None
    name = f"the champion {live.version}"
    after = "; it is the same model, trained again from the same data by the same plan" if live.same_model else ""
    if gate.superior:
        return _against(
            "champion", gate, case, live.scores, name, 0.0, strict=True, after=f", and better is asked for{after}"
        )
    return _against("champion", gate, case, live.scores, name, -gate.margin, strict=False, after=after)


def _beside_nothing(name: str, gate: ChampionGate | SliceGate, case: Case) -> GateVerdict | None:
    """The verdict where nothing serves, or what serves can't be compared; None where it can."""
    case.winner.statistic(gate.metric)  # a name that there is not is an error, also before the first release
    live = case.champion
    if live is None:
        return plain_verdict(name, "pass", "no champion yet", gate)
    why_not = live.why_not
    if live.scores is not None and is_instance(gate.metric) and live.scores.instances is None:
        why_not = "it tells no objects apart"
    if live.scores is None or why_not:
        return plain_verdict(name, "cannot tell", f"{live.version} can't be compared: {why_not}", gate)
    return None


def _against(
    name: str,
    gate: BaselineGate | ChampionGate,
    case: Case,
    other: Scores,
    called: str,
    threshold: float,
    strict: bool,
    after: str = "",
) -> GateVerdict:
    """The paired difference of two models on the same images, held against a threshold.

    strict: better is asked for, which the exchange test must find too (`Comparison.significant`).
    """
    winner, params = case.winner, case.params
    other = winner.aligned(other)
    compared = compare_on(gate.metric, winner, other, params)
    # What is not better must be shown not to be worse, and there is no test to agree with the interval.
    found = compared.difference if strict else compared.conservative
    verdict = verdict_above(found, threshold, strict)
    by_luck = strict and threshold >= 0 and verdict == "pass" and not compared.significant
    verdict = "cannot tell" if by_luck else verdict
    said = f"{winner.candidate}'s test {describe_metric(gate.metric)} "
    if np.isnan(found.estimate):
        said += f"can't be compared with that of {called}: nothing in the test images counts for it"
    else:
        ours, theirs = (scores.value(gate.metric) for scores in (winner, other))
        said += f"is {ours:.3f}, {difference_words(found.estimate)} {called} ({theirs:.3f}) on the same images"
        if np.isnan(found.low):
            said += ", but a single image can't say how sure that is"
        elif verdict == "pass":
            said += f"; with {confidence_words(found)} confidence it is {bound_words(found.low)}"
        elif by_luck:
            said += f", but models that are alike are as far apart on {found.units} images or groups with a chance of "
            said += f"{compared.p_value:.2g}"
        elif verdict == "cannot tell":
            said += f", but it may be {bound_words(found.low)} ({basis_words(found)}, enough to see a difference of "
            said += f"{compared.detectable:.3f} four times in five)"
        if threshold:
            said += f", and {abs(threshold):.3f} {'above is asked for' if threshold > 0 else 'below is allowed'}"
    said += after
    behind = winner.image_scores(gate.metric) - other.image_scores(gate.metric)
    worst = worst_images(winner, np.where(behind < 0, behind, np.nan))
    extra = {"p_value": none_if_nan(compared.p_value), "detectable": none_if_nan(compared.detectable)}
    return interval_verdict(name, verdict, said, gate, found, threshold, worst, **extra)


def by_slice(gate: SliceGate, case: Case) -> GateVerdict:
    """In no slice is the winner worse than what serves by more than `margin`.

    fail: in a slice it is, and the loss there is shown: the p value of the exchange test, corrected by Holm for all slices, is
    below 1 - confidence. So two models that are alike fail with that chance at the most, however many slices there are.
    pass: every slice's lower bound is above -margin; since all must hold at once, those bounds need no correction.
    """
    if (undecided := _beside_nothing("slice", gate, case)) is not None:
        return undecided
    live = case.champion
    assert live is not None and live.scores is not None
    winner = case.winner
    other = winner.aligned(live.scores)
    compared = compare_slices(gate.metric, winner, other, case.params, gate.least_images)
    if not compared:
        said = f"no part of the test images with at least {gate.least_images} images has something in common that others lack"
        return plain_verdict("slice", "cannot tell", said, gate)
    verdicts = [_of_slice(row, gate.margin, case.params.confidence) for row in compared]
    order = sorted(range(len(compared)), key=lambda i: (WORST_FIRST[verdicts[i]], _shortfall(compared[i], verdicts[i])))
    rows = [(compared[i], verdicts[i]) for i in order]
    first, verdict = rows[0]
    parts = [_part(row, said, gate.margin) for row, said in rows]
    behind = np.where(first.slice.members, winner.image_scores(gate.metric) - other.image_scores(gate.metric), np.nan)
    worst = worst_images(winner, np.where(behind < 0, behind, np.nan))
    said = _slice_words(gate, winner.candidate, f"the champion {live.version}", rows)
    extra = {
        "p_value": none_if_nan(first.p_value),
        "detectable": none_if_nan(first.comparison.detectable),
        "parts": parts,
    }
    return interval_verdict("slice", verdict, said, gate, first.comparison.conservative, -gate.margin, worst, **extra)


def _of_slice(row: SliceComparison, margin: float, confidence: float) -> Verdict:
    found = row.comparison.conservative
    if found.estimate < -margin and row.p_value <= 1 - confidence:
        return "fail"
    return "pass" if found.low >= -margin else "cannot tell"


def _shortfall(row: SliceComparison, verdict: Verdict) -> float:
    found = row.comparison.conservative
    value = found.estimate if verdict == "fail" or np.isnan(found.low) else found.low
    return float(value)


def _part(row: SliceComparison, verdict: Verdict, margin: float) -> Part:
    found = row.comparison.conservative
    return Part(
        name=row.slice.name,
        verdict=verdict,
        images=row.images,
        estimate=none_if_nan(found.estimate),
        low=none_if_nan(found.low),
        high=none_if_nan(found.high),
        threshold=-margin,
        p_value=none_if_nan(row.p_value),
        detectable=none_if_nan(row.comparison.detectable),
    )


def _slice_words(gate: SliceGate, candidate: str, called: str, rows: list[tuple[SliceComparison, Verdict]]) -> str:
    first, verdict = rows[0]
    found, count = first.comparison.conservative, f"{len(rows)} slice{'s' if len(rows) > 1 else ''}"
    where = f"on the {first.images} images of {first.slice.name}"
    scores = f"{candidate}'s test {describe_metric(gate.metric)} is {first.ours:.3f}, "
    scores += f"{difference_words(found.estimate)} {called} ({first.theirs:.3f})"
    allowed = f"{gate.margin:.3f} below is allowed"
    others = [row.slice.name for row, said in rows[1:] if said == verdict]
    if verdict == "pass":
        return (
            f"in none of {count} {candidate} is worse than {called} by more than {gate.margin:.3f}; nearest to it is "
            f"{first.slice.name} ({first.images} images), where with {confidence_words(found)} confidence its "
            f"{describe_metric(gate.metric)} is "
            f"{bound_words(found.low)}"
        )
    if verdict == "fail":
        more = f"; so is it on {', '.join(others[:3])}" + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        return (
            f"{where}, {scores}, which is no luck (p = {first.p_value:.2g}, corrected for {count}), and {allowed}"
            f"{more if others else ''}"
        )
    if np.isnan(found.low):
        return f"{where}, {scores}, but a single image can't say how sure that is, and {allowed}"
    more = f"; {len(others)} more of {count} are as unsure" if others else ""
    return (
        f"{where}, {scores}, but it may be {bound_words(found.low)} ({basis_words(found)}, enough to see a difference of "
        f"{first.comparison.detectable:.3f} four times in five), and {allowed}{more}"
    )

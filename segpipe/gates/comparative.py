"""Gates that compare the winner with another model on the same images: baseline, champion, and the champion by slices."""

from __future__ import annotations

import numpy as np

from segpipe.config import BaselineGate, ChampionGate, SliceGate
from segpipe.evaluation.instance_metrics import is_instance
from segpipe.evaluation.metric_lookup import compare_on, describe_metric
from segpipe.evaluation.paired_statistics import Comparison
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.slices import SliceComparison, compare_slices
from segpipe.evaluation.statistics import Interval
from segpipe.gates.case import Case
from segpipe.gates.verdict_building import (
    NO_BOUND,
    basis_words,
    bound_words,
    confidence_words,
    difference_words,
    interval_part,
    interval_verdict,
    none_if_nan,
    plain_verdict,
    verdict_above,
    worst_images,
)
from segpipe.gates.verdicts import WORST_FIRST, GateVerdict, Part, Verdict
from segpipe.words import listed


def baseline(gate: BaselineGate, case: Case) -> GateVerdict:
    """Require that the lower bound of the lead over the best classical candidate is above `margin`."""
    case.winner.statistic(gate.metric)  # an unknown metric is an error, whether there is a baseline or not
    other = case.baseline
    if other is None:
        text = "no classical candidate was evaluated; add `kmeans: {family: kmeans}` to `candidates`, or set `gates.baseline: null`"
        return plain_verdict("baseline", "cannot tell", text, gate)
    return _compare("baseline", gate, case, other, f"the baseline {other.candidate}", gate.margin, strict=True)


def champion(gate: ChampionGate, case: Case) -> GateVerdict:
    """Require that the winner is not worse than the champion.

    The lower bound of the difference must be above -`margin`, or above 0 if the gate is set to `superior`.
    """
    if (verdict := _verdict_without_comparison("champion", gate, case)) is not None:
        return verdict
    other = case.champion
    assert other is not None and other.scores is not None
    name = f"the champion {other.version}"
    note = "; it is the same model, trained again with the same data and plan" if other.same_model else ""
    if other.engines and other.engines[0] != other.engines[1]:
        note += f"; {case.winner.candidate} was scored on {other.engines[0]}, the champion on {other.engines[1]}"
    if gate.superior:
        note = f", and the winner must be better{note}"
        return _compare("champion", gate, case, other.scores, name, 0.0, strict=True, note=note)
    return _compare("champion", gate, case, other.scores, name, -gate.margin, strict=False, note=note)


def _verdict_without_comparison(name: str, gate: ChampionGate | SliceGate, case: Case) -> GateVerdict | None:
    """Return the verdict if there is no champion or it cannot be compared; None if it can."""
    case.winner.statistic(gate.metric)  # an unknown metric is an error, also before the first release
    other = case.champion
    if other is None:
        return plain_verdict(name, "pass", "no champion yet", gate)
    why_not = other.why_not
    if other.scores is not None and is_instance(gate.metric) and other.scores.instances is None:
        why_not = "it does not separate instances"
    if other.scores is None or why_not:
        return plain_verdict(name, "cannot tell", f"the champion {other.version} cannot be compared: {why_not}", gate)
    return None


def _compare(
    name: str,
    gate: BaselineGate | ChampionGate,
    case: Case,
    other: Scores,
    other_name: str,
    threshold: float,
    strict: bool,
    note: str = "",
) -> GateVerdict:
    """Compare the paired difference of two models on the same images with a threshold.

    Args:
        name: name of the gate.
        gate: settings of the gate.
        case: the winner's scores.
        other: scores of the other model on the same images.
        other_name: the other model in the sentence.
        threshold: what the lower bound of the difference must reach.
        strict: the winner must be better, which the permutation test must confirm (`Comparison.significant`).
        note: text at the end of the sentence.
    """
    winner, params = case.winner, case.params
    other = winner.aligned(other)
    comparison = compare_on(gate.metric, winner, other, params)
    # No test confirms that a model is not worse, so the conservative interval decides this.
    interval = comparison.difference if strict else comparison.conservative
    verdict = verdict_above(interval, threshold, strict)
    not_significant = strict and threshold >= 0 and verdict == "pass" and not comparison.significant
    verdict = "cannot tell" if not_significant else verdict
    text = f"{winner.candidate}'s test {describe_metric(gate.metric)} "
    if np.isnan(interval.estimate):
        text += f"cannot be compared with that of {other_name}: nothing in the test images counts for it"
    else:
        ours, theirs = (scores.value(gate.metric) for scores in (winner, other))
        text += f"is {ours:.3f}, {difference_words(interval.estimate)} {other_name} ({theirs:.3f}) on the same images"
        text += _bound_clause(verdict, comparison, interval, not_significant)
        if threshold:
            text += f", and {abs(threshold):.3f} {'above is required' if threshold > 0 else 'below is allowed'}"
    differences = winner.image_scores(gate.metric) - other.image_scores(gate.metric)
    worst = worst_images(winner, np.where(differences < 0, differences, np.nan))
    fields = {"p_value": none_if_nan(comparison.p_value), "detectable": none_if_nan(comparison.detectable)}
    return interval_verdict(name, verdict, text + note, gate, interval, threshold, worst, **fields)


def _bound_clause(verdict: Verdict, comparison: Comparison, interval: Interval, not_significant: bool) -> str:
    """Phrase how sure a difference is; empty if the verdict is fail."""
    if np.isnan(interval.low):
        return f", but {NO_BOUND}"
    if verdict == "pass":
        return f"; with {confidence_words(interval)} confidence it is {bound_words(interval.low)}"
    if not_significant:
        return (
            f", but two equally good models would differ as much on {interval.units} images or groups with probability "
            f"{comparison.p_value:.2g}"
        )
    if verdict == "cannot tell":
        return f", but it may be {bound_words(interval.low)} ({_power_words(comparison, interval)})"
    return ""


def _power_words(comparison: Comparison, interval: Interval) -> str:
    return (
        f"{basis_words(interval)}, enough to detect a difference of {comparison.detectable:.3f} four times out of five"
    )


def by_slice(gate: SliceGate, case: Case) -> GateVerdict:
    """Require that the winner is in no slice worse than the champion by more than `margin`.

    Fail: in a slice it is worse by more than the margin, and the loss is significant: the p value of the permutation test,
    Holm-corrected for all slices, is at most 1 - confidence. So two equally good models fail with at most this probability,
    however many slices there are.

    Pass: the lower bound of every slice is at least -margin. All slices must pass, so the bounds need no correction.
    """
    if (undecided := _verdict_without_comparison("slice", gate, case)) is not None:
        return undecided
    champion = case.champion
    assert champion is not None and champion.scores is not None
    winner = case.winner
    other = winner.aligned(champion.scores)
    comparisons = compare_slices(gate.metric, winner, other, case.params, gate.least_images)
    if not comparisons:
        text = f"no attribute of the test images gives a slice of at least {gate.least_images} images"
        return plain_verdict("slice", "cannot tell", text, gate)
    rows = [(row, _slice_verdict(row, gate.margin, case.params.confidence)) for row in comparisons]
    rows.sort(key=lambda row: (WORST_FIRST[row[1]], _shortfall(*row)))
    first, verdict = rows[0]
    differences = winner.image_scores(gate.metric) - other.image_scores(gate.metric)
    worst = worst_images(winner, np.where(first.slice.members & (differences < 0), differences, np.nan))
    text = _slice_words(gate, winner.candidate, f"the champion {champion.version}", rows)
    fields = {
        "p_value": none_if_nan(first.p_value),
        "detectable": none_if_nan(first.comparison.detectable),
        "parts": [_part(row, slice_verdict, gate.margin) for row, slice_verdict in rows],
    }
    return interval_verdict("slice", verdict, text, gate, first.comparison.conservative, -gate.margin, worst, **fields)


def _slice_verdict(row: SliceComparison, margin: float, confidence: float) -> Verdict:
    interval = row.comparison.conservative
    if interval.estimate < -margin and row.p_value <= 1 - confidence:
        return "fail"
    return "pass" if interval.low >= -margin else "cannot tell"


def _shortfall(row: SliceComparison, verdict: Verdict) -> float:
    """Return the number by which slices of the same verdict are sorted, the worst first."""
    interval = row.comparison.conservative
    value = interval.estimate if verdict == "fail" or np.isnan(interval.low) else interval.low
    return float(value)


def _part(row: SliceComparison, verdict: Verdict, margin: float) -> Part:
    tests = {"p_value": none_if_nan(row.p_value), "detectable": none_if_nan(row.comparison.detectable)}
    return interval_part(row.slice.name, verdict, row.images, row.comparison.conservative, -margin, **tests)


def _slice_words(gate: SliceGate, candidate: str, other_name: str, rows: list[tuple[SliceComparison, Verdict]]) -> str:
    first, verdict = rows[0]
    interval, count = first.comparison.conservative, f"{len(rows)} slice{'s' if len(rows) > 1 else ''}"
    metric, margin = describe_metric(gate.metric), f"{gate.margin:.3f}"
    if verdict == "pass":
        return (
            f"{candidate} is not worse than {other_name} by more than {margin} in any of {count}; the closest is "
            f"{first.slice.name} ({first.images} images), where with {confidence_words(interval)} confidence its {metric} "
            f"is {bound_words(interval.low)}"
        )
    scores = (
        f"on the {first.images} images of {first.slice.name}, {candidate}'s test {metric} is {first.ours:.3f}, "
        f"{difference_words(interval.estimate)} {other_name} ({first.theirs:.3f})"
    )
    others = [row.slice.name for row, slice_verdict in rows[1:] if slice_verdict == verdict]
    if verdict == "fail":
        same = f"; the same holds for {listed(others)}" if others else ""
        return (
            f"{scores}, which is significant (p = {first.p_value:.2g}, corrected for {count}), and {margin} below is "
            f"allowed{same}"
        )
    if np.isnan(interval.low):
        return f"{scores}, but {NO_BOUND}, and {margin} below is allowed"
    more = f"; {len(others)} more of {count} cannot be judged either" if others else ""
    return (
        f"{scores}, but it may be {bound_words(interval.low)} ({_power_words(first.comparison, interval)}), and {margin} below is "
        f"allowed{more}"
    )

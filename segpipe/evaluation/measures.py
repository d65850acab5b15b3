"""Scores by name with how sure they are: of one model, and of two on the same images."""

from __future__ import annotations

from segpipe.config import EvaluateParams
from segpipe.evaluation.differences import Comparison, compare
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.statistics import Exchangeable, Interval, bootstrap


def interval_of(name: str, scores: Scores, params: EvaluateParams) -> Interval:
    """The confidence interval of a model's score, over groups where they are known.

    name: of pixels (`iou.dataset.macro`) or of objects (`instance.f1_50`); raises ConfigError where there is no such score.
    """
    of = scores.statistic(name)
    return bootstrap(of, of.size, _resamples(of, params), params.confidence)


def compare_on(name: str, ours: Scores, theirs: Scores, params: EvaluateParams) -> Comparison:
    """Compare two models by a score, as `interval_of` names it, on the same images in the same order."""
    first, second = ours.statistic(name), theirs.statistic(name)
    return compare(first, second, min(_resamples(of, params) for of in (first, second)), params.confidence)


def _resamples(of: Exchangeable, params: EvaluateParams) -> int:
    return params.resamples if of.most_resamples is None else min(params.resamples, of.most_resamples)

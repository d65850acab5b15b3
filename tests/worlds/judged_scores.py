"""Intervals and comparisons straight from tallies, and selections without what serves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from segpipe.evaluation.paired_statistics import Comparison, compare
from segpipe.evaluation.statistics import SEED, Interval, bootstrap, resampling_units, statistic
from segpipe.gates.selection import Selection, choose
from segpipe.metrics import Metric


def on_images(
    chosen: Metric, tally: np.ndarray, groups: Sequence[str | None], resamples: int, confidence: float, seed: int = SEED
) -> Interval:
    """The interval of a score over images or groups."""
    of = statistic(chosen, tally, resampling_units(groups))
    return bootstrap(of, of.size, resamples, confidence, seed)


def paired(
    chosen: Metric,
    tally: np.ndarray,
    other: np.ndarray,
    groups: Sequence[str | None],
    resamples: int,
    confidence: float,
    seed: int = SEED,
) -> Comparison:
    """Two models by a score over images or groups."""
    units = resampling_units(groups)
    return compare(*(statistic(chosen, t, units) for t in (tally, other)), resamples, confidence, seed)


def select(*asked: Any, **more: Any) -> Selection:
    """The selection that `choose` comes to."""
    return choose(*asked, **more).selection

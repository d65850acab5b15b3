"""Intervals and comparisons computed from tallies, and selections in a workspace without releases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segpipe.evaluation.paired_statistics import Comparison, compare
from segpipe.evaluation.statistics import SEED, Interval, bootstrap, resampling_units, statistic
from segpipe.gates.case import ReleasedBundle
from segpipe.gates.choose import choose
from segpipe.gates.selection import Selection
from segpipe.metrics import Metric
from segpipe.release.champion_file import ChampionFile


def on_images(
    chosen: Metric, tally: np.ndarray, groups: Sequence[str | None], resamples: int, confidence: float, seed: int = SEED
) -> Interval:
    """Compute the interval of a score over images or groups."""
    score = statistic(chosen, tally, resampling_units(groups))
    return bootstrap(score, score.size, resamples, confidence, seed)


def paired(
    chosen: Metric,
    tally: np.ndarray,
    other: np.ndarray,
    groups: Sequence[str | None],
    resamples: int,
    confidence: float,
    seed: int = SEED,
) -> Comparison:
    """Compare two models by a score over images or groups."""
    units = resampling_units(groups)
    return compare(*(statistic(chosen, t, units) for t in (tally, other)), resamples, confidence, seed)


def select(root: Path, *arguments: Any, **more: Any) -> Selection:
    """Return the selection of `choose`, with the champion of the workspace."""
    return choose(root, *arguments, champion=champion_of(root), **more).selection


def champion_of(root: Path) -> ReleasedBundle | None:
    """Return the champion in champion.json; its bundle is the folder with the name of the version."""
    version = ChampionFile.read(root / "champion.json").version
    return ReleasedBundle(version, root / version) if version else None

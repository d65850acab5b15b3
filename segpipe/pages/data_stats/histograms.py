"""Histograms with bins that suit the values, counted by series."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

_MIN_BINS, _MAX_BINS = 5, 40
_LOG_RATIO = 100.0
"""Positive values whose largest is this many times the smallest get logarithmic bins: in linear ones most would share a bin."""


class Histogram(BaseModel):
    """The number of values in each bin, by series (a split, a group, or "all")."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    scale: Literal["linear", "log"]
    """linear: bins of equal width. log: edges with equal factors between them."""
    edges: list[float]
    """Ascending, one more than there are bins. A bin includes its lower edge; the last bin includes its upper edge as well."""
    counts: dict[str, list[int]]
    """Values in each bin, by series."""


def histogram(values: Mapping[str, Sequence[float]], whole: bool = False) -> Histogram | None:
    """Count values in bins that are common to all series.

    The number of bins follows the Rice rule, 2 n^(1/3), between 5 and 40.

    Args:
        values: By series.
        whole: Whether the values are whole numbers; if there are only a few different ones, each gets a bin centred on it.

    Returns:
        The histogram; None if there are no values.
    """
    series = {name: np.asarray(part, np.float64) for name, part in values.items()}
    pooled = np.concatenate([*series.values(), np.empty(0)])
    if not len(pooled):
        return None
    low, high = float(pooled.min()), float(pooled.max())
    bins = int(min(_MAX_BINS, max(_MIN_BINS, math.ceil(2 * len(pooled) ** (1 / 3)))))
    log = low > 0 and high / low >= _LOG_RATIO
    if whole and high - low < bins:
        edges = np.arange(low, high + 2) - 0.5
    elif low == high:
        room = abs(low) * 0.05 or 0.5
        edges = np.array([low - room, low + room])
    elif log:
        edges = np.geomspace(low, high, bins + 1)
        edges[[0, -1]] = low, high
    else:
        edges = np.linspace(low, high, bins + 1)
    counts = {name: np.histogram(part, edges)[0].tolist() for name, part in series.items()}
    return Histogram(scale="log" if log and len(edges) > bins else "linear", edges=edges.tolist(), counts=counts)

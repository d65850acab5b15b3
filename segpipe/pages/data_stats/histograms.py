"""How values are distributed: bins with edges that suit them, counted by series."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

_MOST_BINS = 40
_LOG_FROM = 100.0
"""Positive values whose largest is this many times the smallest are binned by factors: most would share one bin otherwise."""


class Histogram(BaseModel):
    """How many values lie in each bin, by series (a split, a group, or "all")."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    scale: Literal["linear", "log"]
    """Whether bins are equally wide, or equal factors."""
    edges: list[float]
    """Ascending, one more than there are bins; a bin holds its lower edge, the last one its upper edge too."""
    counts: dict[str, list[int]]
    """By series, by bin."""


def histogram(values: Mapping[str, Sequence[float]], whole: bool = False) -> Histogram | None:
    """Bins over the values of all series together; None where there are none.

    The number of bins follows the Rice rule, 2 n^(1/3), and is 40 at the most. `whole` says that values are counts: few
    distinct ones get a bin each, centred on them.
    """
    series = {name: np.asarray(part, np.float64) for name, part in values.items()}
    every = np.concatenate([*series.values(), np.empty(0)])
    if not len(every):
        return None
    low, high = float(every.min()), float(every.max())
    bins = int(min(_MOST_BINS, max(5, math.ceil(2 * len(every) ** (1 / 3)))))
    log = low > 0 and high / low >= _LOG_FROM
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

"""Histograms count every value once, in bins that suit the values."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from segpipe.pages.data_stats.charts import histogram_chart
from segpipe.pages.data_stats.histograms import histogram


@given(st.lists(st.floats(-1e6, 1e6), max_size=50), st.lists(st.floats(1e-3, 1e9), max_size=50), st.booleans())
def test_a_histogram_counts_every_value_once(first: list[float], second: list[float], whole_numbers: bool) -> None:
    if whole_numbers:
        first, second = [float(round(v)) for v in first], [float(round(v)) for v in second]
    assume(first or second)
    values_by_series = {"a": first, "b": second}
    bins = histogram(values_by_series, whole=whole_numbers)
    assert bins is not None
    assert bins.edges == sorted(set(bins.edges))
    for name, values in values_by_series.items():
        pairs = list(pairwise(bins.edges))
        last = len(pairs) - 1
        counts = [
            sum(lower <= v < upper or (i == last and v == upper) for v in values)
            for i, (lower, upper) in enumerate(pairs)
        ]
        assert bins.counts[name] == counts
        assert sum(counts) == len(values)
    chart = histogram_chart(bins)
    assert len(chart.bars) == sum(n > 0 for row in bins.counts.values() for n in row)


def test_without_values_there_is_no_histogram() -> None:
    assert histogram({"a": [], "b": []}) is None


def test_bins_suit_the_values() -> None:
    few = histogram({"all": [1, 1, 2, 4]}, whole=True)
    assert few is not None
    assert (few.edges, few.counts["all"]) == ([0.5, 1.5, 2.5, 3.5, 4.5], [2, 1, 0, 1])
    wide = histogram({"all": [1.0, 10.0, 1e4]})
    assert wide is not None
    assert wide.scale == "log"
    assert np.allclose(np.diff(np.log(wide.edges)), np.log(1e4) / 5)
    same = histogram({"all": [7.0] * 9})
    assert same is not None
    assert same.counts["all"] == [9]

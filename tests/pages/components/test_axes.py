"""Axes hold their values and have round ticks."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segpipe.pages.components.axes import LogAxis, axis


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5))
def test_an_axis_holds_its_values_and_has_round_ticks(values: list[float]) -> None:
    scale = axis(values, 10, 300)
    assert all(10 <= scale(v) <= 300 for v in values)
    assert scale(min(values)) <= scale(max(values))
    assert 2 <= len(scale.ticks) <= 8
    assert all(scale.low - 1e-6 <= t <= scale.high + 1e-6 for t in scale.ticks)


def test_an_axis_by_hand() -> None:
    scale = axis([0.0, 1.0], 0, 100, pad=0.0)
    assert scale.ticks == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert (scale(0.25), scale(-3), scale(9)) == (25, 0, 100)
    assert axis([0.01, 0.5], 0, 100, least=0.0).low == 0
    assert axis([math.nan], 0, 1).ticks


@given(st.floats(1e-6, 1e6), st.floats(1.001, 1e9))
def test_a_log_axis_keeps_factors_and_has_ticks(low: float, factor: float) -> None:
    scale = LogAxis(low, low * factor, 0, 100)
    assert (scale(low), scale(low * factor)) == (0, 100)
    assert scale(low * factor**0.5) == pytest.approx(50, abs=0.02)
    assert len(scale.ticks) <= 8
    assert all(low * 0.999 <= tick <= low * factor * 1.001 for tick in scale.ticks)

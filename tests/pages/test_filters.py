"""Numbers as pages write them."""

from __future__ import annotations

import math

from segpipe.pages.filters import FILTERS, confidence, hex_color, p_value, percent, score, score_row, short, signed


def test_scores_have_three_decimals_and_a_dash_if_missing() -> None:
    assert [score(v) for v in (0.1234, -0.5, 0, None, math.nan)] == ["0.123", "−0.500", "0.000", "–", "–"]
    assert [signed(v) for v in (0.5, 0, -0.5, None)] == ["+0.500", "0.000", "−0.500", "–"]
    assert score(12.345, 1) == "12.3"


def test_a_row_of_counts_has_no_decimals() -> None:
    assert score_row([748.0, None, 0.0]) == ["748", "–", "0"]
    assert score_row([1.0, 0.0, None]) == ["1.000", "0.000", "–"]
    assert score_row([2.0, 2.5]) == ["2.000", "2.500"]
    assert score_row([None]) == ["–"]


def test_p_values() -> None:
    assert [p_value(v) for v in (0.0123, 0.0009, None)] == ["p = 0.012", "p < 0.001", "p = –"]


def test_percentages_have_as_many_digits_as_they_need() -> None:
    assert [percent(v) for v in (0, 1e-7, 0.00005, 0.0034, 0.5)] == ["0 %", "< 0.001 %", "0.005 %", "0.34 %", "50.0 %"]
    assert [percent(0.1234, digits) for digits in (0, 2)] == ["12 %", "12.34 %"]
    assert [confidence(v) for v in (0.95, 0.975)] == ["95 %", "97.5 %"]


def test_numbers_in_few_characters() -> None:
    assert [short(v) for v in (0, 0.25, 1234.5, 12345, 1.7e6, -3e9)] == ["0", "0.25", "1234", "12.3k", "1.7M", "-3G"]


def test_colours_for_css() -> None:
    assert hex_color((0, 128, 255)) == "#0080ff"


def test_filters_are_found_by_their_names() -> None:
    assert FILTERS["percent"] is percent and FILTERS["describe_metric"]("iou.dataset.macro") == "IoU (macro, dataset)"

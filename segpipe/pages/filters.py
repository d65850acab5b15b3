"""Numbers and colours as pages write them. `FILTERS` are the filters of all templates, in addition to Jinja's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from segpipe.evaluation.metric_lookup import describe_metric
from segpipe.words import counted, plural

_UNITS = ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k"))
"""From which value on a unit is used, its size, and its letter."""


def score(value: float | None, digits: int = 3) -> str:
    """Format a score with a fixed number of decimals: 0.1234 -> "0.123"; a dash for None and NaN."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}".replace("-", "−")


def score_row(values: Sequence[float | None]) -> list[str]:
    """Format the scores of one row of a table alike: without decimals if all are counts, else with three decimals."""
    numbers = [value for value in values if value is not None]
    counts = max(numbers, default=0) > 1 and all(float(value).is_integer() for value in numbers)
    return [score(value, 0 if counts else 3) for value in values]


def signed(value: float | None, digits: int = 3) -> str:
    """Format a difference as `score` does, with a plus sign if it is above 0."""
    text = score(value, digits)
    return f"+{text}" if value is not None and not math.isnan(value) and value > 0 else text


def p_value(value: float | None) -> str:
    """Format a p value: 0.0123 -> "p = 0.012", 0.0001 -> "p < 0.001"."""
    return "p < 0.001" if value is not None and value < 0.001 else f"p = {score(value)}"


def percent(share: float, digits: int | None = None) -> str:
    """Format a share as a percentage: 0.1234 -> "12.3 %".

    Args:
        share: 0 to 1.
        digits: Decimals. None: as many as the share needs (one from 1 %, up to three below), so that a share above 0 is never
            shown as 0 %.
    """
    if digits is not None:
        return f"{100 * share:.{digits}f} %"
    if share == 0:
        return "0 %"
    if share < 1e-5:
        return "< 0.001 %"
    return f"{100 * share:.{1 if share >= 0.01 else 2 if share >= 0.001 else 3}f} %"


def confidence(level: float) -> str:
    """Format a confidence level without trailing zeros: 0.95 -> "95 %", 0.975 -> "97.5 %"."""
    return f"{100 * level:.4g} %"


def short(value: float, digits: int = 4) -> str:
    """Format a number in few characters: 0.25 -> "0.25", 12345 -> "12.3k", 3e7 -> "30M".

    Args:
        value: Any finite number.
        digits: Significant digits below 10,000; from there on there are three and a unit.
    """
    for least, size, unit in _UNITS:
        if abs(value) >= least:
            return f"{value / size:.3g}{unit}"
    return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:.0f}"


def hex_color(color: Sequence[int]) -> str:
    """Format an RGB colour for CSS: (0, 128, 255) -> "#0080ff"."""
    return "#{:02x}{:02x}{:02x}".format(*color)


FILTERS: dict[str, Callable[..., object]] = {
    function.__name__: function
    for function in (
        score,
        score_row,
        signed,
        p_value,
        percent,
        confidence,
        short,
        hex_color,
        counted,
        plural,
        describe_metric,
    )
}
"""The filters of the templates, by name."""

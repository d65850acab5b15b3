"""The time that a budget leaves for measuring speeds."""

from __future__ import annotations

from segpipe.config import TrainParams, parse_budget

SHORT_BUDGET_S = 300.0
"""With a shorter budget, settings are not compared: the likeliest one is used, or the one that an earlier comparison chose."""
_STEPS_PER_EPOCH = 15
"""A rough value for `budget_seconds`."""


def budget_seconds(settings: TrainParams, ms_step: float) -> float:
    """Estimate how many seconds a budget lasts. It only decides how long to measure, so an epoch is taken as 15 steps.

    Args:
        settings: the candidate's `train` settings.
        ms_step: about how many milliseconds a step takes.
    """
    kind, amount = parse_budget(settings.budget)
    return amount if kind == "seconds" else amount * ms_step / 1000 * (1 if kind == "steps" else _STEPS_PER_EPOCH)


def has_short_budget(settings: TrainParams) -> bool:
    """Return whether the budget is a time that is too short for comparing settings."""
    kind, amount = parse_budget(settings.budget)
    return kind == "seconds" and amount < SHORT_BUDGET_S

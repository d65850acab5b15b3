"""Changes of params.yaml since a candidate was planned: a plan that is pinned does not follow them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from segpipe.errors import ConfigError
from segpipe.words import listed

if TYPE_CHECKING:
    from segpipe.training.plan import Plan

_NOT_SET = "not set"


def changed_since(plan: Plan, settings: Mapping[str, Any]) -> list[str]:
    """List the settings of a candidate that differ from those that it was planned with.

    Args:
        plan: the candidate's plan.
        settings: the candidate's settings in params.yaml now (`Params.explicit_settings`).

    Returns:
        One line per setting; empty if nothing changed, or if the plan does not record its settings.
    """
    planned = settings if plan.settings is None else plan.settings
    return [
        f"{key} was {before} when it was planned and is {now} now"
        for key in dict.fromkeys([*settings, *planned])
        if (before := planned.get(key, _NOT_SET)) != (now := settings.get(key, _NOT_SET))
    ]


def check_settings(plan: Plan, settings: Mapping[str, Any]) -> None:
    """Check that params.yaml still has the settings that the candidate was planned with; changes would have no effect.

    Args:
        plan: the candidate's plan.
        settings: the candidate's settings in params.yaml now (`Params.explicit_settings`).

    Raises:
        ConfigError: A setting differs; the error names it.
    """
    if changes := changed_since(plan, settings):
        raise ConfigError(
            listed(changes, at_most=1),
            where=f"plans/{plan.candidate}.json",
            fix=f"run `segpipe plan {plan.candidate}`, or `segpipe run`, which plans first; or restore the setting in params.yaml",
        )

"""The number of examples of property tests: the same few in every run, or many new ones at night."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings

_QUICK = 50
_NIGHTLY = 20 * _QUICK


def load_profile() -> None:
    """Select the Hypothesis profile that the environment variable HYPOTHESIS_PROFILE names: `quick` (default) or `nightly`."""
    settings.register_profile("quick", max_examples=_QUICK, deadline=None, derandomize=True)
    settings.register_profile("nightly", max_examples=_NIGHTLY, deadline=None, print_blob=True)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def examples(count: int, **options: Any) -> settings:
    """Return settings with a number of examples other than that of the profile.

    Args:
        count: examples in the quick profile; the nightly profile has 20 times as many.
        **options: further settings of Hypothesis.
    """
    return settings(max_examples=count * settings().max_examples // _QUICK, **options)

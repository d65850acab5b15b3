"""The day by which waivers are judged."""

from __future__ import annotations

from datetime import UTC, date, datetime


def today() -> date:
    """The current day in UTC: the same all over the world."""
    return datetime.now(UTC).date()

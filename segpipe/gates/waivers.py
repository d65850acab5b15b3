"""The date that waivers are compared with."""

from __future__ import annotations

from datetime import UTC, date, datetime


def today() -> date:
    """Return the current date in UTC, which is the same everywhere."""
    return datetime.now(UTC).date()

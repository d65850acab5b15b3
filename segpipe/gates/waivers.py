"""What stands between a selection and a release on a given day: gates that block, and waivers that have ended since."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any


def today() -> date:
    """The day by which waivers are judged, the same all over the world (UTC)."""
    return datetime.now(UTC).date()


def blocking(selection: dict[str, Any], day: date) -> list[dict[str, Any]]:
    """The gates of a selection.json that block a release on this day, in their order.

    A waiver that was valid when the selection was made may have ended: its gate blocks then, whatever the file says. Of a
    file of an earlier version, every gate that does not pass blocks.
    """
    return [gate for gate in selection["gates"] if _blocks(gate, day)]


def _blocks(gate: dict[str, Any], day: date) -> bool:
    waiver = gate.get("waiver")
    ended = waiver is not None and date.fromisoformat(waiver["until"]) < day
    return bool(gate.get("blocks", gate["verdict"] != "pass")) or ended

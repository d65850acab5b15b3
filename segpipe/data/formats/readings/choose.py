"""The choice among the readings of a source: a single clear one is taken, otherwise the user is asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segpipe.data.formats.readings.reading import Reading
from segpipe.errors import DataError


class UnclearSource(DataError):
    """Several readings of a source are clear, or none is.

    Args:
        source: the source.
        readings: its readings, the best supported first.
        prefix: the command to which the arguments of a reading are added.
    """

    def __init__(self, source: Path, readings: Sequence[Reading], prefix: str) -> None:
        self.readings, self.prefix = list(readings), prefix
        clear = [reading for reading in readings if not reading.is_doubtful]
        what = "more than one reading fits" if len(clear) > 1 else "no reading is clear"
        shown = clear if len(clear) > 1 else self.readings
        found = "; ".join(
            f"[{number}] {reading.title()}, because {_because(reading, shown)}"
            for number, reading in enumerate(shown, start=1)
        )
        commands = " or ".join(f"`{reading.command(prefix)}`" for reading in shown)
        super().__init__(what, where=source, found=found, fix=f"choose one: {commands}")

    def as_json(self) -> list[dict[str, Any]]:
        """Return the readings as JSON data, each with the command that chooses it."""
        return [{**r.model_dump(mode="json"), "command": r.command(self.prefix)} for r in self.readings]


def _because(reading: Reading, others: Sequence[Reading]) -> str:
    """Return the evidence of a reading that not all readings share, and what speaks against it."""
    shared = set.intersection(*({evidence.text for evidence in other.evidence} for other in others))
    own = [evidence for evidence in reading.evidence if evidence.text not in shared or len(others) == 1]
    reasons = "; ".join(evidence.text for evidence in own if evidence.supports) or reading.reasons()
    doubts = reading.reasons(supports=False)
    return f"{reasons}, but {doubts}" if doubts else reasons


def choose_reading(source: Path, readings: Sequence[Reading], prefix: str, take_first: bool = False) -> Reading:
    """Return the reading to take: the only clear one.

    Args:
        source: the source, for errors.
        readings: its readings, the best supported first.
        prefix: the command to which the arguments of a reading are added in errors.
        take_first: whether the first clear reading (or, if none is clear, the first one) is taken instead of asking.

    Raises:
        UnclearSource: several are clear, or none is.
    """
    clear = [reading for reading in readings if not reading.is_doubtful]
    if len(clear) == 1 or (take_first and clear):
        return clear[0]
    if take_first:
        return readings[0]
    raise UnclearSource(source, readings, prefix)

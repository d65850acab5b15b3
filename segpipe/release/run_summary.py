"""What the retrain flow did, for the command line and for programs (`segpipe run --json`)."""

from __future__ import annotations

from pydantic import BaseModel

from segpipe.errors import GateBlocked
from segpipe.gates.selection import Selection
from segpipe.gates.waivers import today


class RunSummary(BaseModel):
    """What one run of the retrain flow did. The fields from `selection` on are None where the pipeline has no stage `export`."""

    root: str
    ran: dict[str, float] = {}
    """Seconds of each stage that ran."""
    up_to_date: list[str] = []
    """Stages that did not need to run."""
    seconds: float = 0.0
    selection: Selection | None = None
    version: str | None = None
    """The version of the winner; None where a gate blocked it."""
    released: bool = False
    """Whether this run made that version."""
    promoted: bool = False
    """Whether this run made that version live."""
    blocked: str | None = None
    """Why nothing was released, in one sentence; None where nothing blocked."""
    live: str | None = None
    """The version that is live after the run."""

    def check_released(self) -> None:
        """Raise the error that `Selection.refusal` names where the gates held the winner back."""
        if self.blocked:
            kind = (self.selection.refusal(today()) if self.selection else None) or GateBlocked
            raise kind(f"nothing was promoted: {self.blocked}", fix="segpipe gate --explain tells why")

"""The result of the retrain flow, for the command line and for programs (`segpipe run --json`)."""

from __future__ import annotations

from pydantic import BaseModel

from segpipe.errors import GateBlocked
from segpipe.gates.selection import Selection
from segpipe.gates.waivers import today


class RunSummary(BaseModel):
    """The result of one run of the retrain flow. If the pipeline has no stage `export`, the fields from `selection` on stay empty."""

    root: str
    """The workspace."""
    ran: dict[str, float] = {}
    """Duration in seconds of each stage that ran."""
    up_to_date: list[str] = []
    """Stages that did not need to run."""
    seconds: float = 0.0
    """Duration of the whole run."""
    selection: Selection | None = None
    version: str | None = None
    """The version of the winner; None if a gate blocked it."""
    released: bool = False
    """True if this run made that version."""
    promoted: bool = False
    """True if this run promoted that version."""
    blocked: str | None = None
    """Why nothing was released, in one sentence; None if nothing blocked."""
    live: str | None = None
    """The version that is live after the run."""

    def check_released(self) -> None:
        """Raise an error if the run released nothing because the gates blocked the winner.

        Raises:
            MissingError: there is no winner.
            GateBlocked: a gate fails.
            UndecidedError: a gate cannot tell, and none fails.
        """
        if self.blocked:
            error = (self.selection.refusal(today()) if self.selection else None) or GateBlocked
            raise error(f"nothing was released: {self.blocked}", fix="segpipe gate --explain shows the reasons")

"""What a gate says of the winner: a verdict, numbers and one sentence.

A verdict is `pass` where the bound is on the right side of the threshold, `fail` where the score itself is not, and
`cannot tell` in between: the score would do, but on so few images it may be luck.
"""

from __future__ import annotations

from datetime import date
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

Verdict = Literal["pass", "fail", "cannot tell"]

WORST_FIRST: dict[Verdict, int] = {"fail": 0, "cannot tell": 1, "pass": 2}
"""Of parts, the worst verdict decides: the lowest of these."""


class Part(BaseModel):
    """What a gate says of one class or one slice. `estimate`, `low`, `high` as in `GateVerdict`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    verdict: Verdict
    images: int
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    threshold: float
    p_value: float | None = None
    """Of a difference as large as this between models that are alike, corrected for the number of slices (Holm)."""
    detectable: float | None = None
    """The smallest true difference that these images would show four times in five."""


class WaiverNote(BaseModel):
    """The waiver of a gate that did not pass. expired: it ended before the day of judgement, and so has no effect."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    reason: str
    until: date
    expired: bool


class GateVerdict(BaseModel):
    """What one gate says, in numbers and in one sentence.

    `estimate`, `low` and `high` are the score (floor, class_floor, calibration ...), or the winner's score less the other's
    (baseline, champion, slice), and are None where it does not exist; of a gate with parts, those of the part that decides.
    `worst` names the images on which the winner does worst, or worst beside the other.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    verdict: Verdict
    sentence: str
    reason: str
    """Why there is this gate."""
    metric: str
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    threshold: float | None = None
    side: Literal["least", "most"] = "least"
    """Whether the threshold is to be reached, or not to be passed."""
    confidence: float | None = None
    """Of the bound, one-sided."""
    p_value: float | None = None
    """Of a difference as large as this between two models that are alike; None where no two are compared."""
    detectable: float | None = None
    """The smallest true difference that these images would show four times in five; None where no two are compared."""
    worst: list[str] = []
    parts: list[Part] = []
    """Verdicts of single classes or slices, where the gate is about each of them."""
    mode: Literal["block", "warn"] = "block"
    waiver: WaiverNote | None = None
    blocks: bool
    """Whether this verdict stands in the way of a release."""

    def blocks_on(self, day: date) -> bool:
        """Whether the verdict blocks a release on a day: it does once the waiver that covers it has ended."""
        return self.blocks or (self.waiver is not None and self.waiver.until < day)

    @model_validator(mode="before")
    @classmethod
    def _blocks_unless_it_passes(cls, content: Any) -> Any:
        """Before there were modes and waivers, every verdict but pass did."""
        if isinstance(content, dict) and "verdict" in content:
            return {"blocks": content["verdict"] != "pass"} | content
        return content

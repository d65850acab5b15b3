"""The verdict of a gate on the winner: pass, fail or cannot tell, with numbers and one sentence.

The verdict is `pass` if the confidence bound is on the right side of the threshold, and `fail` if the score itself is not. In
between it is `cannot tell`: the score is good enough, but with so few images this may be due to chance.
"""

from __future__ import annotations

from datetime import date
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

Verdict = Literal["pass", "fail", "cannot tell"]

WORST_FIRST: dict[Verdict, int] = {"fail": 0, "cannot tell": 1, "pass": 2}
"""Sort key of verdicts: in a gate with several parts, the part with the lowest key decides."""


class Part(BaseModel):
    """The verdict of a gate on one class, slice or corruption. `estimate`, `low` and `high` as in `GateVerdict`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    verdict: Verdict
    images: int
    """Number of test images with the class, in the slice, or corrupted."""
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    threshold: float
    p_value: float | None = None
    """Probability of such a difference between equally good models, corrected for the number of slices (Holm)."""
    detectable: float | None = None
    """The smallest true difference that these images detect four times out of five."""


class WaiverNote(BaseModel):
    """The waiver of a gate that did not pass."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    """The person who is responsible for the waiver."""
    reason: str
    until: date
    """The last day on which it is valid."""
    expired: bool
    """True if it had ended when the gate was judged, and so has no effect."""


class GateVerdict(BaseModel):
    """The verdict of one gate, with its numbers and one sentence.

    `estimate`, `low` and `high` are the score (floor, class_floor, calibration ...) or the winner's score minus that of the other
    model (baseline, champion, slice). They are None if the score is undefined. For a gate with parts, they are those of the part
    that decides.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    verdict: Verdict
    sentence: str
    reason: str
    """Why the gate exists."""
    metric: str
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    threshold: float | None = None
    side: Literal["least", "most"] = "least"
    """Direction of the threshold: it must be reached (least) or must not be exceeded (most)."""
    confidence: float | None = None
    """Confidence of the one-sided bound that decides."""
    p_value: float | None = None
    """Probability of such a difference between two equally good models; None if the gate does not compare two models."""
    detectable: float | None = None
    """The smallest true difference that these images detect four times out of five; None if the gate does not compare two models."""
    worst: list[str] = []
    """Keys of the images with the lowest scores, or of those on which the winner is furthest behind the other model."""
    parts: list[Part] = []
    """The verdicts on single classes, slices or corruptions, if the gate judges each of them."""
    mode: Literal["block", "warn"] = "block"
    waiver: WaiverNote | None = None
    blocks: bool
    """True if this verdict blocks a release."""

    def blocks_on(self, day: date) -> bool:
        """Return whether the verdict blocks a release on a day: also once the waiver that covers it has ended."""
        return self.blocks or (self.waiver is not None and self.waiver.until < day)

    @model_validator(mode="before")
    @classmethod
    def _blocks_unless_it_passes(cls, content: Any) -> Any:
        """Read verdicts from before there were modes and waivers: every verdict but pass blocked."""
        if isinstance(content, dict) and "verdict" in content:
            return {"blocks": content["verdict"] != "pass"} | content
        return content

"""The evidence that gates judge by: the winner, the models that it is compared with, and other measurements."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segpipe.config import EvaluateParams
from segpipe.evaluation.metrics_file import RobustnessScores
from segpipe.evaluation.scores import Scores
from segpipe.validation.findings import FindingsFile

if TYPE_CHECKING:
    from segpipe.inference.segmenter import Segmenter


@dataclass(frozen=True)
class ReleasedBundle:
    """A released version and the folder of its bundle."""

    version: str
    bundle: Path


@dataclass(frozen=True)
class Champion:
    """The champion, scored on the current test images."""

    version: str
    scores: Scores | None
    """None if it cannot be scored."""
    why_not: str | None = None
    """Why it cannot be scored."""
    same_model: bool = False
    """True if the winner is the same model, trained again with the same data and plan."""
    segmenter: Segmenter | None = None
    """The loaded champion, if it could be scored."""
    engines: tuple[str, str] | None = None
    """The engines that scored the winner and the champion, both in float32. They differ if only one of the two is a detector, or if the
    winner's ONNX graph does not agree with torch."""


@dataclass(frozen=True)
class Case:
    """The evidence that gates judge by. Anything but the winner's scores may be unknown (None)."""

    params: EvaluateParams
    winner: Scores
    baseline: Scores | None = None
    """The best classical candidate."""
    champion: Champion | None = None
    megabytes: float | None = None
    """Size of the winner's weights, 10^6 bytes."""
    findings: FindingsFile | None = None
    """The findings of validation."""
    robustness: RobustnessScores | None = None
    """The winner's scores on corrupted images, as `segpipe.evaluation.robustness.drops` computes them."""
    val_can_choose: bool = True
    """False if the validation split holds a single class: nothing that was chosen by it means anything."""

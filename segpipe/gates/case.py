"""What gates judge by: the winner, the models it is compared with, and what else was measured."""

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
    """The champion, scored on today's test images; `scores` is None if it cannot be scored, and `why_not` says why."""

    version: str
    scores: Scores | None
    why_not: str | None = None
    same_model: bool = False
    """Whether the winner is this very model, trained again from the same data by the same plan."""
    segmenter: Segmenter | None = None
    """The model itself, where it could be scored."""


@dataclass(frozen=True)
class Case:
    """What gates judge by: the winner, what it is held against, and what is known beside scores.

    megabytes: of the winner's weights (10^6 bytes). findings: of the validation. robustness: what
    `segpipe.evaluation.robustness.drops` measured of the winner. Each None where unknown.
    """

    params: EvaluateParams
    winner: Scores
    baseline: Scores | None = None
    champion: Champion | None = None
    megabytes: float | None = None
    findings: FindingsFile | None = None
    robustness: RobustnessScores | None = None

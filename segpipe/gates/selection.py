"""selection.json: the ranking, the winner and the verdict of every gate. It answers whether the winner may be released."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from segpipe.errors import DataError, GateBlocked, MissingError, SegpipeError, UndecidedError
from segpipe.files import sha256_file, write_text
from segpipe.gates.verdicts import GateVerdict
from segpipe.json_models import read_model
from segpipe.metrics import MAIN_METRIC

LATENCY_FILE = "latency.json"
"""File in the bundle with the verdict of the latency gate, which `export` judges (`segpipe.gates.latency`)."""


class Bounds(BaseModel):
    """A two-sided confidence interval."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    low: float
    high: float
    confidence: float


class RankedCandidate(BaseModel):
    """One candidate in the ranking."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    candidate: str
    family: str
    kind: Literal["network", "detector", "classical"]
    val: float | None
    """Score on the validation split, by which networks are ranked."""
    test: dict[str, float | None]
    """Scores on the test split, by name."""
    interval: Bounds | None
    """Confidence interval of the ranking metric on the test split."""


class ChampionScore(BaseModel):
    """The champion, scored on the current test images."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    version: str
    test: dict[str, float | None] = {}
    interval: Bounds | None = None
    why_not: str | None = None
    """Why it could not be scored; None if it was."""
    same_model: bool = False
    """True if the winner is the same model, trained again with the same data and plan."""
    engine: str | None = None
    """The engine that scored it; None if it was not scored, or by an earlier version of segpipe."""


class LatencyVerdict(BaseModel):
    """The content of latency.json: the verdict of the latency gate, and the selection that it belongs to."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    gate: GateVerdict
    selection_sha256: str | None = None
    """Hash of the selection.json whose winner was timed; None in bundles of earlier versions of segpipe."""


class Selection(BaseModel):
    """The content of selection.json: ranking, winner, verdicts.

    It depends on the evaluations and on which waivers have ended, but not on times or paths.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1] = 1
    winner: str | None
    promotable: bool
    """True if there was a winner and no gate of `gates` blocked it on the day of the selection. `promotable_on` answers for any day."""
    summary: str
    """The outcome in one sentence."""
    metric: str = MAIN_METRIC
    ranking: list[RankedCandidate]
    """Networks by validation score, then classical candidates by test score."""
    gates: list[GateVerdict]
    champion: ChampionScore | None
    classes: list[str]
    test_images: int
    data_hash: str
    temperature: float = 1.0
    """The winner's logits are divided by it. It was fitted on the validation split and used in the evaluation; the bundle has it too."""
    latency: GateVerdict | None = Field(None, exclude=True)
    """The verdict of the latency gate, once `export` has timed this winner; stored in the bundle, not in selection.json."""

    @classmethod
    def read(cls, path: Path, bundle: Path | None = None) -> Selection:
        """Read selection.json.

        Args:
            path: selection.json.
            bundle: the folder of the exported winner; if its latency.json belongs to this selection, `latency` is set.

        Raises:
            DataError: the file is not a valid selection.
        """
        selection = read_model(path, cls, error_type=DataError, kind="selection", fix="dvc repro select")
        if bundle is None or not (bundle / LATENCY_FILE).exists():
            return selection
        verdict = read_model(
            bundle / LATENCY_FILE, LatencyVerdict, error_type=DataError, kind="verdict", fix="dvc repro -f export"
        )
        current = verdict.selection_sha256 in (None, sha256_file(path))
        return selection.model_copy(update={"latency": verdict.gate}) if current else selection

    def write(self, path: Path) -> None:
        """Write selection.json, atomically."""
        write_text(path, self.model_dump_json(indent=2) + "\n")

    @property
    def verdicts(self) -> list[GateVerdict]:
        """The verdicts of all gates; the latency gate comes last, if it was judged."""
        return [*self.gates, *([self.latency] if self.latency else [])]

    def blocking(self, day: date) -> list[GateVerdict]:
        """Return the verdicts that block a release on a day.

        A waiver that was valid when the selection was made may have ended since; its gate then blocks.
        """
        return [verdict for verdict in self.verdicts if verdict.blocks_on(day)]

    def promotable_on(self, day: date) -> bool:
        """Return whether there is a winner and nothing blocks its release on a day."""
        return self.winner is not None and not self.blocking(day)

    def outcome_on(self, day: date) -> str:
        """Return the outcome on a day in one sentence: `summary`, or the gates that have begun to block since the selection."""
        blocking = [verdict.name for verdict in self.blocking(day)]
        if self.winner is None or not self.promotable or not blocking:
            return self.summary
        return f"{self.winner} is held back by {gate_names(blocking)}."

    def refusal(self, day: date) -> type[SegpipeError] | None:
        """Return the error type of a release on a day.

        Returns:
            None if the winner may be released. Otherwise MissingError if there is no winner, GateBlocked if a blocking gate fails,
            UndecidedError if blocking gates cannot tell and none fails.
        """
        if self.winner is None:
            return MissingError
        verdicts = {verdict.verdict for verdict in self.blocking(day)}
        if not verdicts:
            return None
        return GateBlocked if "fail" in verdicts else UndecidedError

    def check_promotable(self, day: date) -> None:
        """Check that the winner may be released on a day.

        Raises:
            MissingError: there is no winner.
            GateBlocked: a blocking gate fails.
            UndecidedError: blocking gates cannot tell, and none fails.
        """
        error = self.refusal(day)
        names = ", ".join(verdict.name for verdict in self.blocking(day))
        if error is MissingError:
            raise MissingError("there is no winner to judge", fix="add a network to `candidates:` in params.yaml")
        if error is GateBlocked:
            raise GateBlocked(
                f"{self.winner} may not be released",
                found=f"not passed: {names}",
                fix="segpipe report --open shows why",
            )
        if error is UndecidedError:
            raise UndecidedError(
                f"the test images cannot tell whether {self.winner} may be released",
                found=names,
                fix="add test images; `segpipe gate --explain` shows which difference the current ones can detect",
            )


class _CandidateName(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)
    candidate: str


def gate_names(names: Sequence[str]) -> str:
    """Phrase the names of gates: "the class floor and champion gates"."""
    return f"the {' and '.join(names).replace('_', ' ')} gate{'s' if len(names) > 1 else ''}"


class SelectionOutline(BaseModel):
    """The part of a selection.json that is read even if another version of segpipe wrote the file."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    winner: str | None = None
    ranking: list[_CandidateName] = []

    @classmethod
    def parse(cls, content: bytes | None) -> SelectionOutline | None:
        """Parse the bytes of a selection.json; None if there are none or they are not valid."""
        try:
            return None if content is None else cls.model_validate_json(content)
        except ValidationError:
            return None

    @property
    def candidates(self) -> list[str]:
        """Names of the ranked candidates."""
        return [row.candidate for row in self.ranking]

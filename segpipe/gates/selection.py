"""selection.json: the ranking, the winner and the verdict of every gate. The one answer to "may the winner be released?"."""

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
from segpipe.words import plural

LATENCY_FILE = "latency.json"
"""In the bundle: the verdict of the latency gate, which `export` judges (`segpipe.gates.latency`)."""


class Bounds(BaseModel):
    """A two-sided confidence interval."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    low: float
    high: float
    confidence: float


class RankedCandidate(BaseModel):
    """One candidate in the ranking. `val` ranks it; `test` (scores by name) and `interval` (of the main metric on test) judge it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    candidate: str
    family: str
    kind: Literal["network", "detector", "classical"]
    val: float | None
    test: dict[str, float | None]
    interval: Bounds | None


class ChampionScore(BaseModel):
    """The champion, scored on today's test images."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    version: str
    test: dict[str, float | None] = {}
    interval: Bounds | None = None
    why_not: str | None = None
    """Why it could not be scored; None if it was."""
    same_model: bool = False
    """Whether the winner is this model, trained again from the same data by the same plan."""


class LatencyVerdict(BaseModel):
    """latency.json: the verdict of the latency gate, and the selection that it belongs to."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    gate: GateVerdict
    selection_sha256: str | None = None
    """Of the selection.json whose winner was timed; None in bundles of earlier versions of segpipe."""


class Selection(BaseModel):
    """selection.json: ranking, winner, verdicts. It depends on the evaluations and on which waivers have ended, not on times or paths."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1] = 1
    winner: str | None
    promotable: bool
    """Whether there was a winner and no gate of `gates` blocked it on the day of the selection. `blocking` has today's answer."""
    summary: str
    """The outcome in one sentence."""
    metric: str = MAIN_METRIC
    ranking: list[RankedCandidate]
    """Networks by validation score, then the classical candidates by test score."""
    gates: list[GateVerdict]
    champion: ChampionScore | None
    classes: list[str]
    test_images: int
    data_hash: str
    temperature: float = 1.0
    """Divides the winner's logits; fitted on the validation split. The winner was evaluated with it and is shipped with it."""
    latency: GateVerdict | None = Field(None, exclude=True)
    """The verdict of the latency gate, once `export` has timed this winner; kept in the bundle, not in selection.json."""

    @classmethod
    def read(cls, path: Path, bundle: Path | None = None) -> Selection:
        """Read selection.json.

        Args:
            path: selection.json.
            bundle: the folder of the exported winner; if its latency.json belongs to this selection, `latency` is filled.

        Raises:
            DataError: the file is not a valid selection.
        """
        selection = read_model(path, cls, error_type=DataError, kind="selection", fix="dvc repro select")
        if bundle is None or not (bundle / LATENCY_FILE).exists():
            return selection
        timed = read_model(
            bundle / LATENCY_FILE, LatencyVerdict, error_type=DataError, kind="verdict", fix="dvc repro -f export"
        )
        belongs = timed.selection_sha256 in (None, sha256_file(path))
        return selection.model_copy(update={"latency": timed.gate}) if belongs else selection

    def write(self, path: Path) -> None:
        """Write selection.json, atomically."""
        write_text(path, self.model_dump_json(indent=2) + "\n")

    @property
    def verdicts(self) -> list[GateVerdict]:
        """The verdicts of all gates, that of the latency gate last where it is known."""
        return [*self.gates, *([self.latency] if self.latency else [])]

    def blocking(self, day: date) -> list[GateVerdict]:
        """The verdicts that block a release on a day.

        A waiver that was valid when the selection was made may have ended since: its gate then blocks, whatever the file says.
        """
        return [verdict for verdict in self.verdicts if verdict.blocks_on(day)]

    def promotable_on(self, day: date) -> bool:
        """Whether there is a winner and nothing blocks its release on a day."""
        return self.winner is not None and not self.blocking(day)

    def outcome_on(self, day: date) -> str:
        """The outcome in one sentence, as of a day: `summary`, or the gates that have come to block since."""
        blocking = [verdict.name for verdict in self.blocking(day)]
        if self.winner is None or not self.promotable or not blocking:
            return self.summary
        return f"{self.winner} is held back by {gate_names(blocking)}."

    def refusal(self, day: date) -> type[SegpipeError] | None:
        """The error that a release on a day would end with; None if the winner may be released.

        MissingError: there is no winner. GateBlocked: it is worse than a gate allows. UndecidedError: gates that block cannot tell.
        """
        if self.winner is None:
            return MissingError
        verdicts = {verdict.verdict for verdict in self.blocking(day)}
        if not verdicts:
            return None
        return GateBlocked if "fail" in verdicts else UndecidedError

    def check_promotable(self, day: date) -> None:
        """Raise the error of `refusal`, with what the user can do."""
        kind = self.refusal(day)
        names = ", ".join(verdict.name for verdict in self.blocking(day))
        if kind is MissingError:
            raise MissingError("there is no winner to judge", fix="add a trainable candidate to params.yaml")
        if kind is GateBlocked:
            raise GateBlocked(f"{self.winner} may not be released", found=names, fix="segpipe report --open shows why")
        if kind is UndecidedError:
            raise UndecidedError(
                f"the test images cannot tell whether {self.winner} may be released",
                found=names,
                fix="add test images; `segpipe gate --explain` says what difference these could have shown",
            )


class _CandidateName(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)
    candidate: str


def gate_names(names: Sequence[str]) -> str:
    """Gates in words: "the class floor and champion gates"."""
    return f"the {' and '.join(names).replace('_', ' ')} {plural(len(names), 'gate')}"


class SelectionOutline(BaseModel):
    """What is read of a selection.json that another version of segpipe may have written."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    winner: str | None = None
    ranking: list[_CandidateName] = []

    @classmethod
    def parse(cls, content: bytes | None) -> SelectionOutline | None:
        """Parse the bytes of a selection.json; None if there are none or they do not fit."""
        try:
            return None if content is None else cls.model_validate_json(content)
        except ValidationError:
            return None

    @property
    def candidates(self) -> list[str]:
        """The candidates that were ranked."""
        return [row.candidate for row in self.ranking]

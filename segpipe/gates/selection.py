"""The choice: the winner by its validation score, judged by its test scores against floor, baseline and champion.

The test split never chooses. Networks are ranked by their score on `val` (`evaluate.rank_by`); the gates then read `test` once, for
the winner.
Classical candidates can't win: they are what a network must beat, and the best of them on `test` stands for them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from segpipe.config import EvaluateParams, Params, config_error
from segpipe.errors import DataError
from segpipe.evaluation.instance_counts import ObjectCounter
from segpipe.evaluation.metric_lookup import interval_of, main_scores, metric_path
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.scores_file import read_scores
from segpipe.evaluation.scoring import score_images
from segpipe.files import read_json
from segpipe.gates.judge import judge
from segpipe.gates.verdicts import Case, Champion, GateVerdict, describe
from segpipe.metrics import MAIN_METRIC

if TYPE_CHECKING:
    from segpipe.data.manifest.fingerprint import Fingerprint


class Bounds(BaseModel):
    """A two-sided confidence interval."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    low: float
    high: float
    confidence: float


class Ranked(BaseModel):
    """One candidate. `val` chose; `test` (several scores by name) and `interval` (of the main metric on test) judge."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    candidate: str
    family: str
    kind: Literal["network", "detector", "classical"]
    val: float | None
    test: dict[str, float | None]
    interval: Bounds | None


class ChampionScore(BaseModel):
    """What serves now, scored on today's test images."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    version: str
    test: dict[str, float | None] = {}
    interval: Bounds | None = None
    why_not: str | None = None
    """Why it could not be scored, where it could not."""
    same_model: bool = False
    """Whether the winner is this model, trained again from the same data by the same plan."""


class Selection(BaseModel):
    """selection.json: ranking, winner, verdicts. A function of the evaluations and of which waivers have ended: no times, no paths."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1] = 1
    winner: str | None
    promotable: bool
    """Whether there is a winner and no gate blocks it. Until the last day of the waivers that it owes this to: a release looks
    again (`segpipe.gates.waivers`)."""
    summary: str
    """The outcome in one sentence."""
    metric: str = MAIN_METRIC
    ranking: list[Ranked]
    """Networks by validation score, then the classical candidates by test score."""
    gates: list[GateVerdict]
    champion: ChampionScore | None
    classes: list[str]
    test_images: int
    data_hash: str
    temperature: float = 1.0
    """What the winner's logits are divided by, fitted on the validation split: it was evaluated so, and ships so."""

    @classmethod
    def read(cls, path: Path) -> Selection:
        """Read selection.json; a DataError where it is none."""
        try:
            return cls.model_validate(read_json(path))
        except ValidationError as error:
            first = config_error(error, path, cls)
            raise DataError(
                f"is no selection: {first.what}",
                where=path,
                found=first.found,
                expected=first.expected,
                fix="dvc repro select",
            ) from error


@dataclass(frozen=True)
class Outcome:
    """A selection, and what serves now as it did on each of today's test images, which selection.json sums up."""

    selection: Selection
    champion: Champion | None


def choose(root: Path, params: Params, fingerprint: Fingerprint, shards: Path, today: date | None = None) -> Outcome:
    """Rank the candidates of params.yaml by evaluation/NAME/, choose and judge the winner.

    shards: the folder of the prepared splits; the champion of champion.json is scored on its test split here and now. today:
    the day by which waivers are judged; None lets none have ended.
    """
    from segpipe.models.registry import family

    scores = {name: read_scores(root / "evaluation" / name / "per_image.parquet") for name in params.candidates}
    ranked_by = params.evaluate.rank_by
    kinds = {name: family(candidate.family).kind for name, candidate in params.candidates.items()}
    ranking = _rank(
        [
            Ranked(
                candidate=name,
                family=params.candidates[name].family,
                kind=kinds[name],
                val=_val_score(root, name, ranked_by),
                test=main_scores(found, ranked_by),
                interval=bounds(found, params.evaluate),
            )
            for name, found in scores.items()
        ],
        ranked_by,
    )
    first = ranking[0]
    winner = scores[first.candidate] if first.kind != "classical" else None
    baseline = next((scores[r.candidate] for r in ranking if r.kind == "classical"), None)
    champion = _champion(root, winner, fingerprint, shards) if winner else None
    verdicts = []
    if winner:
        robustness = _measured(root, winner.candidate, "test", "robustness")
        weight = _measured(root, winner.candidate, "model", "megabytes")
        case = Case(params.evaluate, winner, baseline, champion, weight, _findings(root), robustness)
        verdicts = judge(params.gates, case, today)
    promotable = winner is not None and not any(v.blocks for v in verdicts)
    made = Selection(
        winner=first.candidate if winner else None,
        promotable=promotable,
        metric=ranked_by,
        summary=_summary(ranking, winner, verdicts, ranked_by),
        ranking=ranking,
        gates=verdicts,
        champion=_champion_score(champion, params.evaluate),
        classes=next(iter(scores.values())).classes,
        test_images=len(next(iter(scores.values())).keys),
        data_hash=fingerprint.data_hash,
        temperature=(_measured(root, winner.candidate, "val", "calibration", "temperature") or 1.0) if winner else 1.0,
    )
    return Outcome(made, champion)


def bounds(scores: Scores, params: EvaluateParams) -> Bounds | None:
    """The interval of the metric that candidates are ranked by, or None where there are too few images for one."""
    found = interval_of(params.rank_by, scores, params)
    return None if np.isnan(found.low) else Bounds(low=found.low, high=found.high, confidence=found.confidence)


def _measured(root: Path, name: str, *path: str) -> Any:
    """What an evaluation's metrics.json holds at a path of keys; None where it holds nothing there."""
    part: Any = read_json(root / "evaluation" / name / "metrics.json")
    for word in path:
        part = part.get(word) if isinstance(part, dict) else None
    return part


def _findings(root: Path) -> dict[str, Any] | None:
    path = root / "reports" / "validation" / "findings.json"
    return read_json(path) if path.exists() else None


def _val_score(root: Path, name: str, ranked_by: str) -> float | None:
    value = _measured(root, name, "val", *metric_path(ranked_by))
    return value if isinstance(value, float | int) else None


def _rank(entries: list[Ranked], ranked_by: str) -> list[Ranked]:
    """Networks by validation score, then classical candidates by test score; what ties keeps the order of params.yaml."""
    networks = [e for e in entries if e.kind != "classical"]
    unscored = [e.candidate for e in networks if e.val is None]
    if unscored:
        raise DataError(
            "a network without a validation score can't be ranked",
            where=f"evaluation/{unscored[0]}/metrics.json",
            expected=f"val.{ranked_by}",
            fix=f"dvc repro train@{unscored[0]} evaluate@{unscored[0]}",
        )
    classical = [e for e in entries if e.kind == "classical"]
    return [
        *sorted(networks, key=lambda e: -(e.val or 0.0)),
        *sorted(classical, key=lambda e: -(e.test[ranked_by] or 0.0)),
    ]


def _champion(root: Path, winner: Scores, fingerprint: Fingerprint, shards: Path) -> Champion | None:
    """What champion.json names, scored on the test shards."""
    from segpipe.data.shards import ShardReader
    from segpipe.inference.segmenter import Segmenter
    from segpipe.release.registry import release_bundle

    version = read_json(root / "champion.json").get("version")
    if version is None:
        return None
    segmenter = Segmenter.from_bundle(release_bundle(root, version))
    spec = segmenter.spec
    if spec.classes.overlapping != winner.overlapping:
        return Champion(
            version, None, f"its classes {'' if spec.classes.overlapping else 'do not '}overlap, unlike the data's"
        )
    if spec.classes.names != winner.classes:
        return Champion(
            version, None, f"its classes are {_listed(spec.classes.names)}, the data's {_listed(winner.classes)}"
        )
    if spec.normalisation.channels != fingerprint.channels:
        return Champion(
            version, None, f"it takes {spec.normalisation.channels} channels, the images have {fingerprint.channels}"
        )
    objects = ObjectCounter(len(winner.classes))
    images = score_images(segmenter, ShardReader(shards, "test"), f"champion {version}", objects=objects)
    scores = Scores.collect(version, winner.classes, dict(spec.lineage), images, winner.overlapping)
    # What the winner's lineage says, the champion's must say too; a bundle's lineage says more (the engine's weights).
    same = (
        bool(winner.lineage) and spec.candidate == winner.candidate and winner.lineage.items() <= spec.lineage.items()
    )
    return Champion(version, scores, same_model=same, segmenter=segmenter)


def _champion_score(champion: Champion | None, params: EvaluateParams) -> ChampionScore | None:
    if champion is None:
        return None
    if champion.scores is None:
        return ChampionScore(version=champion.version, why_not=champion.why_not)
    test, sure = main_scores(champion.scores, params.rank_by), bounds(champion.scores, params)
    return ChampionScore(version=champion.version, test=test, interval=sure, same_model=champion.same_model)


def _summary(ranking: list[Ranked], winner: Scores | None, verdicts: list[GateVerdict], ranked_by: str) -> str:
    if winner is None:
        return "There is no winner: no candidate is a network."
    blocking = [v.name for v in verdicts if v.blocks]
    networks = sum(r.kind != "classical" for r in ranking)
    place = f"the best of {networks} networks on the validation split" if networks > 1 else "the only network"
    by = f" by {describe(ranked_by)}" if networks > 1 and ranked_by != MAIN_METRIC else ""
    chosen = f"{winner.candidate} is {place}{by}"
    if not verdicts:
        return f"{chosen}; no gate is on."
    if blocking:
        return f"{chosen}, but is held back by {_gates(blocking)}."
    waived = [v.name for v in verdicts if v.waiver]
    missed = [v.name for v in verdicts if v.verdict != "pass" and not v.waiver]
    notes = [f"{_gates(waived)}, which {'are' if len(waived) > 1 else 'is'} waived"] if waived else []
    notes += [f"{_gates(missed)}, which only warn{'' if len(missed) > 1 else 's'}"] if missed else []
    return f"{chosen} and passes every gate{' but ' if notes else ''}{', and '.join(notes)}."


def _gates(names: list[str]) -> str:
    return f"the {' and '.join(names).replace('_', ' ')} gate{'s' if len(names) > 1 else ''}"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")

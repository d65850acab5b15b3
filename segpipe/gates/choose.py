"""The choice: the winner by its validation score, judged by its test scores against floor, baseline and champion.

The test split never chooses. Networks are ranked by their score on `val` (`evaluate.rank_by`); the gates then read `test` once, for
the winner.
Classical candidates can't win: they are what a network must beat, and the best of them on `test` stands for them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segpipe.config import EvaluateParams, Params
from segpipe.errors import DataError
from segpipe.evaluation.instance_counts import InstanceCounter
from segpipe.evaluation.metric_lookup import describe_metric, interval_of, main_scores, metric_path
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.scores_file import read_scores
from segpipe.evaluation.scoring import score_images
from segpipe.files import read_json
from segpipe.gates.case import Case, Champion, ReleasedBundle
from segpipe.gates.judge import judge
from segpipe.gates.selection import Bounds, ChampionScore, RankedCandidate, Selection, gate_names
from segpipe.gates.verdicts import GateVerdict
from segpipe.metrics import MAIN_METRIC

if TYPE_CHECKING:
    from segpipe.data.manifest.fingerprint import Fingerprint


@dataclass(frozen=True)
class Choice:
    """A selection, and the champion with its scores on each of today's test images."""

    selection: Selection
    champion: Champion | None


def choose(
    root: Path,
    params: Params,
    fingerprint: Fingerprint,
    shards: Path,
    champion: ReleasedBundle | None = None,
    today: date | None = None,
) -> Choice:
    """Rank the candidates of params.yaml by evaluation/NAME/, choose the winner and judge it by the gates.

    Args:
        root: the workspace.
        params: its settings.
        fingerprint: the dataset in numbers.
        shards: the folder that `prepare` wrote.
        champion: the released model that gates compare the winner with; it is scored on the test split of `shards` now. None: there
            is none yet.
        today: the day by which waivers are judged; None treats every waiver as valid.

    Raises:
        DataError: a network has no validation score, or models were scored on different images.
        ConfigError: a gate names a metric or class that does not exist.
    """
    from segpipe.models.registry import get_family

    scores = {name: read_scores(root / "evaluation" / name / "per_image.parquet") for name in params.candidates}
    ranked_by = params.evaluate.rank_by
    kinds = {name: get_family(candidate.family).kind for name, candidate in params.candidates.items()}
    ranking = _rank(
        [
            RankedCandidate(
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
    scored = (
        score_champion(champion.version, champion.bundle, winner, fingerprint.channels, shards)
        if winner and champion
        else None
    )
    verdicts = []
    if winner:
        robustness = _measured(root, winner.candidate, "test", "robustness")
        weight = _measured(root, winner.candidate, "model", "megabytes")
        case = Case(params.evaluate, winner, baseline, scored, weight, _findings(root), robustness)
        verdicts = judge(params.gates, case, today)
    promotable = winner is not None and not any(v.blocks for v in verdicts)
    selection = Selection(
        winner=first.candidate if winner else None,
        promotable=promotable,
        metric=ranked_by,
        summary=_summary(ranking, winner, verdicts, ranked_by),
        ranking=ranking,
        gates=verdicts,
        champion=_champion_score(scored, params.evaluate),
        classes=next(iter(scores.values())).classes,
        test_images=len(next(iter(scores.values())).keys),
        data_hash=fingerprint.data_hash,
        temperature=(_measured(root, winner.candidate, "val", "calibration", "temperature") or 1.0) if winner else 1.0,
    )
    return Choice(selection, scored)


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


def _rank(entries: list[RankedCandidate], ranked_by: str) -> list[RankedCandidate]:
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


def score_champion(version: str, bundle: Path, winner: Scores, channels: int, shards: Path) -> Champion:
    """Score a released model on today's test images.

    Args:
        version: the released version, such as "v0.2.0".
        bundle: its bundle.
        winner: the winner's scores; classes and lineage are compared with them.
        channels: channels of the dataset's images.
        shards: the folder that `prepare` wrote; its test split is scored.
    """
    from segpipe.data.shards import ShardReader
    from segpipe.inference.segmenter import Segmenter

    segmenter = Segmenter.from_bundle(bundle)
    spec = segmenter.spec
    if spec.classes.overlapping != winner.overlapping:
        return Champion(
            version, None, f"its classes {'' if spec.classes.overlapping else 'do not '}overlap, unlike the data's"
        )
    if spec.classes.names != winner.classes:
        return Champion(
            version, None, f"its classes are {_listed(spec.classes.names)}, the data's {_listed(winner.classes)}"
        )
    if spec.normalisation.channels != channels:
        return Champion(version, None, f"it takes {spec.normalisation.channels} channels, the images have {channels}")
    objects = InstanceCounter(len(winner.classes))
    images = score_images(segmenter, ShardReader(shards, "test"), f"champion {version}", objects=objects)
    scores = Scores.collect(version, winner.classes, dict(spec.lineage), images, winner.overlapping)
    # A bundle's lineage has more entries than a trained model's (the engine's weights), so the winner's must be a part of it.
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


def _summary(ranking: list[RankedCandidate], winner: Scores | None, verdicts: list[GateVerdict], ranked_by: str) -> str:
    if winner is None:
        return "There is no winner: no candidate is a network."
    blocking = [v.name for v in verdicts if v.blocks]
    networks = sum(r.kind != "classical" for r in ranking)
    place = f"the best of {networks} networks on the validation split" if networks > 1 else "the only network"
    by = f" by {describe_metric(ranked_by)}" if networks > 1 and ranked_by != MAIN_METRIC else ""
    chosen = f"{winner.candidate} is {place}{by}"
    if not verdicts:
        return f"{chosen}; no gate is on."
    if blocking:
        return f"{chosen}, but is held back by {gate_names(blocking)}."
    waived = [v.name for v in verdicts if v.waiver]
    missed = [v.name for v in verdicts if v.verdict != "pass" and not v.waiver]
    notes = [f"{gate_names(waived)}, which {'are' if len(waived) > 1 else 'is'} waived"] if waived else []
    notes += [f"{gate_names(missed)}, which only warn{'' if len(missed) > 1 else 's'}"] if missed else []
    return f"{chosen} and passes every gate{' but ' if notes else ''}{', and '.join(notes)}."


def _listed(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")

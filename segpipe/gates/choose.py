"""Choose the winner by validation scores, and judge it by its test scores with the gates.

The test split never influences the choice. Networks are ranked by their score on `val` (`evaluate.rank_by`); then the gates read
the `test` scores of the winner once. Classical candidates cannot win: a network must beat them, and the one with the best test
score is the baseline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segpipe.config import EvaluateParams, Params
from segpipe.errors import DataError
from segpipe.evaluation.instance_counts import InstanceCounter
from segpipe.evaluation.metric_lookup import describe_metric, interval_of, main_scores
from segpipe.evaluation.metrics_file import MetricsFile
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.scores_file import read_scores
from segpipe.evaluation.scoring import score_images
from segpipe.gates.case import Case, Champion, ReleasedBundle
from segpipe.gates.judge import judge
from segpipe.gates.selection import Bounds, ChampionScore, RankedCandidate, Selection, gate_names
from segpipe.gates.verdicts import GateVerdict
from segpipe.metrics import MAIN_METRIC
from segpipe.validation.findings import FindingsFile
from segpipe.words import listed
from segpipe.workspace.paths import Paths

if TYPE_CHECKING:
    from segpipe.data.manifest.fingerprint import Fingerprint


@dataclass(frozen=True)
class Choice:
    """A selection, and the champion with its scores on each test image."""

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
        champion: the released model that gates compare the winner with; it is scored on the test split of `shards`. None if there
            is no champion yet.
        today: the day on which waivers must be valid; None treats every waiver as valid.

    Raises:
        DataError: a network has no validation score, or models were scored on different images.
        ConfigError: a gate names a metric or class that does not exist.
    """
    scores = {name: read_scores(Paths(root).scores(name)) for name in params.candidates}
    metrics = {name: MetricsFile.read(Paths(root).metrics(name)) for name in params.candidates}
    ranked_by = params.evaluate.rank_by
    val_can_choose = sum(count > 0 for count in fingerprint.class_pixels.get("val", [1, 1])) > 1
    ranking = _ranking(params, scores, metrics, val_can_choose)
    first = ranking[0]
    winner = scores[first.candidate] if first.kind != "classical" else None
    baseline = next((scores[r.candidate] for r in ranking if r.kind == "classical"), None)
    scored_champion, verdicts, temperature = None, [], 1.0
    if winner:
        measured = metrics[winner.candidate]
        if champion:
            engine = measured.engine
            scored_champion = score_champion(champion, winner, engine, fingerprint.channels, shards)
        case = Case(
            params.evaluate,
            winner,
            baseline,
            scored_champion,
            megabytes=measured.model.megabytes if measured.model else None,
            findings=_findings(root),
            robustness=measured.test.robustness if measured.test else None,
            val_can_choose=val_can_choose,
        )
        verdicts = judge(params.gates, case, today)
        temperature = measured.temperature or 1.0
    any_scores = next(iter(scores.values()))
    selection = Selection(
        winner=first.candidate if winner else None,
        promotable=winner is not None and not any(v.blocks for v in verdicts),
        metric=ranked_by,
        summary=_summary(ranking, winner, verdicts, ranked_by),
        ranking=ranking,
        gates=verdicts,
        champion=_champion_score(scored_champion, params.evaluate),
        classes=any_scores.classes,
        test_images=len(any_scores.keys),
        data_hash=fingerprint.data_hash,
        temperature=temperature,
    )
    return Choice(selection, scored_champion)


def bounds(scores: Scores, params: EvaluateParams) -> Bounds | None:
    """Return the interval of the metric that ranks candidates; None if there are too few images for an interval."""
    interval = interval_of(params.rank_by, scores, params)
    if np.isnan(interval.low):
        return None
    return Bounds(low=interval.low, high=interval.high, confidence=interval.confidence)


def _findings(root: Path) -> FindingsFile | None:
    path = Paths(root).findings
    return FindingsFile.read(path) if path.exists() else None


def _ranking(
    params: Params, scores: Mapping[str, Scores], metrics: Mapping[str, MetricsFile], val_can_choose: bool
) -> list[RankedCandidate]:
    """Rank networks by validation score, then classical candidates by test score; ties keep the order of params.yaml.

    If the validation split holds a single class, it tells no network from another: they keep the order of params.yaml, without a score.
    """
    from segpipe.models.registry import get_family

    ranked_by = params.evaluate.rank_by
    candidates = [
        RankedCandidate(
            candidate=name,
            family=params.candidates[name].family,
            kind=get_family(params.candidates[name].family).kind,
            val=metrics[name].val_score(ranked_by) if val_can_choose else None,
            test=main_scores(test, ranked_by),
            interval=bounds(test, params.evaluate),
        )
        for name, test in scores.items()
    ]
    networks = [c for c in candidates if c.kind != "classical"]
    classical = [c for c in candidates if c.kind == "classical"]
    unscored = [c.candidate for c in networks if c.val is None]
    if unscored and val_can_choose:
        raise DataError(
            "a network without a validation score cannot be ranked",
            where=f"evaluation/{unscored[0]}/metrics.json",
            expected=f"val.{ranked_by}",
            fix=f"dvc repro train@{unscored[0]} evaluate@{unscored[0]}",
        )
    return [
        *sorted(networks, key=lambda c: -(c.val or 0.0)),
        *sorted(classical, key=lambda c: -(c.test[ranked_by] or 0.0)),
    ]


def score_champion(
    released: ReleasedBundle, winner: Scores, engine: str | None, channels: int, shards: Path
) -> Champion:
    """Score a released model on the current test images, in float32 like the candidates.

    Args:
        released: the released version and its bundle.
        winner: the winner's scores; its classes must be those of the champion, and its lineage shows whether it is the same model.
        engine: the engine that scored the winner; None if it is unknown.
        channels: number of channels of the dataset's images.
        shards: the folder that `prepare` wrote; its test split is scored.

    Returns:
        The champion; without scores, but with the reason, if it does not fit the data, or if the engine is unknown.
    """
    from segpipe.data.shards import ShardReader
    from segpipe.gates.class_order import with_class_order
    from segpipe.inference.scoring import bundle_for_scoring

    version, reader = released.version, ShardReader(shards, "test")
    if engine is None:
        why_not = (
            f"{winner.candidate} was evaluated by an earlier version of segpipe, perhaps on another engine than the champion "
            f"is now; `dvc repro -s -f evaluate@{winner.candidate}` evaluates it again"
        )
        return Champion(version, None, why_not)
    loaded = bundle_for_scoring(released.bundle, reader)
    segmenter = with_class_order(loaded, winner.classes) or loaded  # classes are the same by name, not by place
    spec = segmenter.spec
    if spec.classes.overlapping != winner.overlapping:
        why_not = f"its classes {'' if spec.classes.overlapping else 'do not '}overlap, unlike those of the data"
        return Champion(version, None, why_not)
    if spec.classes.names != winner.classes:
        why_not = f"its classes are {listed(spec.classes.names)}, those of the data are {listed(winner.classes)}"
        return Champion(version, None, why_not)
    if spec.normalisation.channels != channels:
        why_not = f"it takes {spec.normalisation.channels} channels, the images have {channels}"
        return Champion(version, None, why_not)
    counter = InstanceCounter(len(winner.classes))
    images = score_images(segmenter, reader, f"champion {version}", instances=counter)
    scores = Scores.collect(version, winner.classes, dict(spec.lineage), images, winner.overlapping)
    # The lineage of a bundle has more entries than that of a trained model, so that of the winner must be a subset.
    same_model = (
        bool(winner.lineage) and spec.candidate == winner.candidate and winner.lineage.items() <= spec.lineage.items()
    )
    engines = (engine, segmenter.engine.name)
    return Champion(version, scores, same_model=same_model, segmenter=segmenter, engines=engines)


def _champion_score(champion: Champion | None, params: EvaluateParams) -> ChampionScore | None:
    if champion is None:
        return None
    if champion.scores is None:
        return ChampionScore(version=champion.version, why_not=champion.why_not)
    test, interval = main_scores(champion.scores, params.rank_by), bounds(champion.scores, params)
    engine = champion.engines[1] if champion.engines else None
    return ChampionScore(
        version=champion.version, test=test, interval=interval, same_model=champion.same_model, engine=engine
    )


def _summary(ranking: list[RankedCandidate], winner: Scores | None, verdicts: list[GateVerdict], ranked_by: str) -> str:
    if winner is None:
        return "There is no winner: no candidate is a network."
    blocking = [v.name for v in verdicts if v.blocks]
    networks = sum(r.kind != "classical" for r in ranking)
    rank = f"the best of {networks} networks on the validation split" if networks > 1 else "the only network"
    metric = f" by {describe_metric(ranked_by)}" if networks > 1 and ranked_by != MAIN_METRIC else ""
    text = f"{winner.candidate} is {rank}{metric}"
    if not verdicts:
        return f"{text}; no gate is enabled."
    if blocking:
        return f"{text}, but is held back by {gate_names(blocking)}."
    waived = [v.name for v in verdicts if v.waiver]
    warned = [v.name for v in verdicts if v.verdict != "pass" and not v.waiver]
    notes = [f"{gate_names(waived)}, which {'are' if len(waived) > 1 else 'is'} waived"] if waived else []
    notes += [f"{gate_names(warned)}, which only warn{'' if len(warned) > 1 else 's'}"] if warned else []
    return f"{text} and passes every gate{' but ' if notes else ''}{', and '.join(notes)}."

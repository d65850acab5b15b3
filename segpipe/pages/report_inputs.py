"""The contents of the report that come from metrics.json, and the cost of each candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segpipe.evaluation.instance_metrics import DESCRIPTIONS as INSTANCE_METRICS
from segpipe.evaluation.metrics_file import METRICS_FILE, CalibrationBin, MetricsFile, ScoresOnTest
from segpipe.pages.plan_views import ExecutionOutline, read_plan, read_training
from segpipe.workspace.paths import Paths

SEVERITY_ORDER = ("light", "medium", "strong")


def read_metrics(root: Path, name: str) -> MetricsFile:
    """Read the metrics.json of a candidate.

    Args:
        root: the workspace.
        name: the candidate.

    Returns:
        The metrics; all None if the candidate was not evaluated.

    Raises:
        DataError: the file is not valid.
    """
    path = Paths(root).evaluation(name) / METRICS_FILE
    return MetricsFile.read(path) if path.is_file() else MetricsFile()


@dataclass(frozen=True)
class ReliabilityBin:
    """Pixels of about the same confidence: their mean confidence, the share that is right, and their share of all pixels."""

    confidence: float
    right: float
    share: float


@dataclass(frozen=True)
class CalibrationView:
    """A reliability diagram and its errors, with the temperature that is shipped.

    Attributes:
        bins: the diagram, from the lowest confidence on.
        ece: expected calibration error.
        low: lower bound of `ece`; None if unknown.
        high: upper bound of `ece`; None if unknown.
        mce: maximum calibration error; None if unknown.
        temperature: that is shipped; None if none was fitted.
        ece_before: expected calibration error without the temperature; None if it was not measured.
        before: the diagram without the temperature; empty if it was not measured.
    """

    bins: list[ReliabilityBin]
    ece: float
    low: float | None
    high: float | None
    mce: float | None
    temperature: float | None
    ece_before: float | None
    before: list[ReliabilityBin]


def calibration_view(metrics: MetricsFile) -> CalibrationView | None:
    """Return the calibration on the test split; None if it was not measured."""
    scores = metrics.test.calibration if metrics.test else None
    if scores is None or scores.ece is None or not scores.curve:
        return None
    before = scores.thinned.before if scores.thinned else None
    return CalibrationView(
        _bins(scores.curve),
        scores.ece,
        scores.interval.low if scores.interval else None,
        scores.interval.high if scores.interval else None,
        scores.mce,
        metrics.temperature,
        before.ece if before else None,
        _bins(before.curve) if before else [],
    )


def _bins(curve: list[CalibrationBin]) -> list[ReliabilityBin]:
    total = sum(row.pixels for row in curve) or 1
    return [ReliabilityBin(row.confidence, row.right, row.pixels / total) for row in curve]


@dataclass(frozen=True)
class DropRow:
    """The loss of a model on images that are corrupted in one way, at one severity.

    Attributes:
        corruption: in words.
        severity: light, medium or strong.
        score: on the corrupted images; None if it does not exist.
        drop: the score on the original images minus `score`.
        low: lower bound of `drop`; None if unknown.
        high: upper bound of `drop`; None if unknown.
    """

    corruption: str
    severity: str
    score: float | None
    drop: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class RobustnessView:
    """Drops by corruption, the largest first, and the number of images that were corrupted."""

    images: int
    drops: list[DropRow]


def robustness_view(metrics: MetricsFile) -> RobustnessView | None:
    """Return the losses on corrupted images; None if they were not measured."""
    scores = metrics.test.robustness if metrics.test else None
    if scores is None:
        return None
    rows = [
        DropRow(name.replace("_", " "), severity, drop.score, drop.drop, drop.low, drop.high)
        for name, severities in scores.by.items()
        for severity, drop in severities.items()
    ]
    if not rows:
        return None
    worst = {name: max(r.drop for r in rows if r.corruption == name) for name in {r.corruption for r in rows}}
    rank = {severity: index for index, severity in enumerate(SEVERITY_ORDER)}
    rows.sort(key=lambda r: (-worst[r.corruption], r.corruption, rank.get(r.severity, 0), r.severity))
    return RobustnessView(scores.images, rows)


@dataclass(frozen=True)
class FurtherScores:
    """A table of further scores, of instances or surfaces: a value for each candidate, None if it has none; counts are whole numbers."""

    title: str
    rows: list[tuple[str, list[float | None]]]


_INSTANCE_LABELS = {
    "recall": "mask recall",
    "ap_small": "mask AP of small instances",
    "ap_medium": "mask AP of medium instances",
    "ap_large": "mask AP of large instances",
    "n_true": "true instances",
    "n_predicted": "predicted instances",
    **INSTANCE_METRICS,
}
_SURFACE_LABELS = {
    "hd95": "95 % Hausdorff distance",
    "assd": "average surface distance",
    "nsd": "surface Dice",
}


def further_scores(metrics: Sequence[MetricsFile]) -> list[FurtherScores]:
    """Return the tables of instance and surface scores.

    Args:
        metrics: of each candidate.

    Returns:
        One table of each kind for which a candidate has scores, without the scores of single classes.
    """
    tests = [one.test or ScoresOnTest() for one in metrics]
    tables = []
    for title, columns in (
        ("Instances", [_instance_scores(test) for test in tests]),
        ("Surfaces", [_surface_scores(test) for test in tests]),
    ):
        names = dict.fromkeys(name for column in columns for name in column)
        rows = [(name, [column.get(name) for column in columns]) for name in names]
        tables += [FurtherScores(title, rows)] if rows else []
    return tables


def _instance_scores(test: ScoresOnTest) -> dict[str, float]:
    fields = {} if test.instance is None else dict(test.instance)
    return {_INSTANCE_LABELS.get(name, name): value for name, value in fields.items() if isinstance(value, int | float)}


def _surface_scores(test: ScoresOnTest) -> dict[str, float]:
    scores = {name: getattr(test.surface, name, None) for name in _SURFACE_LABELS}
    return {f"{_SURFACE_LABELS[name]} (macro, image)": score.image.macro for name, score in scores.items() if score}


@dataclass(frozen=True)
class CostRow:
    """The cost of a model.

    Attributes:
        name: the candidate, or the version of a champion.
        megabytes: of the weights.
        latency: p50 and p95 of a prediction in ms.
        engine: that predicted.
        served: whether `latency` is of requests to the Bento.
        serving_mib: peak memory of the process that predicted.
        steps: of the training.
        images_per_s: of the training.
        ms: of a training step.
        training_mib: peak memory of a training step.
    """

    name: str
    megabytes: float | None = None
    latency: tuple[float, float] | None = None
    engine: str | None = None
    served: bool = False
    serving_mib: float | None = None
    steps: int | None = None
    images_per_s: float | None = None
    ms: float | None = None
    training_mib: float | None = None


def costs(root: Path, metrics: Mapping[str, MetricsFile]) -> list[CostRow]:
    """Return the cost of each candidate.

    Args:
        root: the workspace, with the plans and trainings of the candidates.
        metrics: of each candidate, by name.

    Returns:
        One row for each candidate of which a cost is known.
    """
    rows = []
    for name, measured in metrics.items():
        training, plan, cost = read_training(root, name), read_plan(root, name), measured.cost
        execution = plan.execution or ExecutionOutline()
        row = CostRow(
            name,
            megabytes=measured.model.megabytes if measured.model else None,
            latency=(cost.p50_ms, cost.p95_ms) if cost else None,
            engine=cost.engine if cost else None,
            serving_mib=cost.peak_memory_mib if cost else None,
            steps=training.step if plan.steps is None else plan.steps,
            images_per_s=training.train.images_per_s,
            ms=execution.ms_per_step,
            training_mib=execution.peak_memory_mib,
        )
        if any(value is not None for value in (row.megabytes, row.latency, row.images_per_s, row.ms)):
            rows.append(row)
    return rows

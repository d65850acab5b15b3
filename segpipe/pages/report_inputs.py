"""What the report shows of the files of other stages: metrics.json, plans, and the timings of trainings.

Plans and timings are read tolerantly: what is missing, or was written in another form by another version, is not shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from segpipe.evaluation.instance_metrics import DESCRIPTIONS as INSTANCE_METRICS
from segpipe.evaluation.metrics_file import METRICS_FILE, CalibrationBin, MetricsFile, ScoresOnTest
from segpipe.files import read_json
from segpipe.workspace.paths import Paths

SEVERITY_ORDER = ("light", "medium", "strong")


class _Lenient(BaseModel):
    """A part of a file that another version of segpipe may have written."""

    model_config = ConfigDict(extra="ignore", frozen=True)


Model = TypeVar("Model", bound=_Lenient)


def _parse(model: type[Model], content: Any) -> Model | None:
    """Parse a part of a JSON file; None if it does not fit."""
    try:
        return model.model_validate(content)
    except ValidationError:
        return None


def _read(model: type[Model], path: Path) -> Model:
    """Read a JSON file; without content if it is missing or does not fit."""
    return (_parse(model, read_json(path)) if path.is_file() else None) or model()


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
        mce: largest calibration error; None if unknown.
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
    """A table of further scores, of instances or surfaces: a value for each candidate, None if it has none."""

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
    return {
        _INSTANCE_LABELS.get(name, name): float(value)
        for name, value in fields.items()
        if isinstance(value, int | float)
    }


def _surface_scores(test: ScoresOnTest) -> dict[str, float]:
    scores = {name: getattr(test.surface, name, None) for name in _SURFACE_LABELS}
    return {f"{_SURFACE_LABELS[name]} image macro": score.image.macro for name, score in scores.items() if score}


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


class _Throughput(_Lenient):
    images_per_s: float | None = None


class _TrainingSummary(_Lenient):
    """The metrics.json that dvclive writes for a training."""

    step: int | None = None
    train: _Throughput = _Throughput()


class _Timing(_Lenient):
    setting: dict[str, Any]
    ms_per_step: float | None = None
    loss_difference: float | None = None
    verdict: str = ""


class _Execution(_Lenient):
    setting: dict[str, Any] = {}
    ms_per_step: float | None = None
    peak_memory_mib: float | None = None
    timings: list[_Timing] = []
    machine: dict[str, Any] = {}


class _Recipe(_Lenient):
    steps: int


class _Folds(_Lenient):
    count: int


class _PlanOutline(_Lenient):
    """The parts of a plan that the report shows."""

    recipe: _Recipe | None = None
    execution: _Execution | None = None
    folds: _Folds | None = None
    reasons: dict[str, Any] = {}


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
        training = _read(_TrainingSummary, Paths(root).training(name) / "metrics.json")
        plan = _read(_PlanOutline, Paths(root).plan(name))
        execution, cost = plan.execution or _Execution(), measured.cost
        members = plan.folds.count if plan.folds else 1
        row = CostRow(
            name,
            megabytes=measured.model.megabytes if measured.model else None,
            latency=(cost.p50_ms, cost.p95_ms) if cost else None,
            engine=cost.engine if cost else None,
            serving_mib=cost.peak_memory_mib if cost else None,
            steps=plan.recipe.steps * members if plan.recipe else training.step,
            images_per_s=training.train.images_per_s,
            ms=execution.ms_per_step,
            training_mib=execution.peak_memory_mib,
        )
        if any(value is not None for value in (row.megabytes, row.latency, row.images_per_s, row.ms)):
            rows.append(row)
    return rows


class TimedPart(_Lenient):
    """A part of a training step, its share of the time, and its milliseconds; None if unknown."""

    part: str
    share: float
    ms: float | None = None


def bottleneck(path: Path) -> list[TimedPart]:
    """Read the parts of a training step from training/NAME/bottleneck.json, the longest first; none if there is no such file."""
    rows = read_json(path) if path.is_file() else []
    parts = [part for row in rows if (part := _parse(TimedPart, row))] if isinstance(rows, list) else []
    return sorted(parts, key=lambda part: -part.share)


@dataclass(frozen=True)
class TimedSetting:
    """A setting that planning timed.

    Attributes:
        name: the setting in words.
        ms: of a step; None if it was not timed.
        share: of the time of the slowest setting.
        difference: of the loss, relative to fp32; None if unknown.
        verdict: of planning, in words.
        chosen: whether the plan uses it.
    """

    name: str
    ms: float | None
    share: float
    difference: float | None
    verdict: str
    chosen: bool


@dataclass(frozen=True)
class PlanView:
    """The timings, reasons and machine of a plan, and the parts of a step of its training."""

    timings: list[TimedSetting]
    reasons: dict[str, Any]
    machine: dict[str, Any]
    parts: list[TimedPart]


def plan_views(root: Path, names: list[str]) -> dict[str, PlanView]:
    """Return what the report shows of the plans, by candidate; a candidate without a plan is left out."""
    paths = Paths(root)
    return {
        name: _plan_view(_read(_PlanOutline, paths.plan(name)), bottleneck(paths.training(name) / "bottleneck.json"))
        for name in names
        if paths.plan(name).is_file()
    }


def _plan_view(plan: _PlanOutline, parts: list[TimedPart]) -> PlanView:
    execution = plan.execution or _Execution()
    slowest = max((timing.ms_per_step for timing in execution.timings if timing.ms_per_step), default=1.0)
    rows = [
        TimedSetting(
            _describe_setting(timing.setting),
            timing.ms_per_step,
            (timing.ms_per_step or 0) / slowest,
            timing.loss_difference,
            timing.verdict,
            timing.setting == execution.setting,
        )
        for timing in execution.timings
    ]
    return PlanView(rows, plan.reasons, execution.machine, parts)


def _describe_setting(setting: dict[str, Any]) -> str:
    """Describe a setting: {precision: bf16, channels_last: true, compile: false} -> "bf16, channels-last"."""
    flags = [key.replace("_", "-") for key, value in setting.items() if value is True]
    return ", ".join([str(v) for v in setting.values() if isinstance(v, str)] + flags)

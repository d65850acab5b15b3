"""The contents of the report that come from plans and from the timings of trainings.

The files are read tolerantly: what is missing, or was written in another form by another version, is not shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from segpipe.files import read_json
from segpipe.workspace.paths import Paths


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


class _Throughput(_Lenient):
    images_per_s: float | None = None


class TrainingSummary(_Lenient):
    """The metrics.json that dvclive writes for a training."""

    step: int | None = None
    train: _Throughput = _Throughput()


class _Timing(_Lenient):
    setting: dict[str, Any]
    ms_per_step: float | None = None
    loss_difference: float | None = None
    verdict: str = ""


class ExecutionOutline(_Lenient):
    """The parts of a plan's execution that the report shows."""

    setting: dict[str, Any] = {}
    ms_per_step: float | None = None
    peak_memory_mib: float | None = None
    timings: list[_Timing] = []
    machine: dict[str, Any] = {}


class _Recipe(_Lenient):
    steps: int


class _Folds(_Lenient):
    count: int


class PlanOutline(_Lenient):
    """The parts of a plan that the report shows."""

    recipe: _Recipe | None = None
    execution: ExecutionOutline | None = None
    folds: _Folds | None = None
    reasons: dict[str, Any] = {}

    @property
    def steps(self) -> int | None:
        """The steps of all members together; None for a classical model."""
        return self.recipe.steps * (self.folds.count if self.folds else 1) if self.recipe else None


def read_plan(root: Path, name: str) -> PlanOutline:
    """Read the plan of a candidate; without content if it is missing or does not fit."""
    return _read(PlanOutline, Paths(root).plan(name))


def read_training(root: Path, name: str) -> TrainingSummary:
    """Read the summary of the training of a candidate; without content if it is missing or does not fit."""
    return _read(TrainingSummary, Paths(root).training(name) / "metrics.json")


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
        name: _plan_view(read_plan(root, name), bottleneck(paths.bottleneck(name)))
        for name in names
        if paths.plan(name).is_file()
    }


def _plan_view(plan: PlanOutline, parts: list[TimedPart]) -> PlanView:
    execution = plan.execution or ExecutionOutline()
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

"""The section `gates` of params.yaml: what the winner must pass before it is released, and waivers."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from segpipe.config.sections import Section


class Gate(Section):
    """The settings that all gates have."""

    mode: Literal["block", "warn"] = "block"
    """block: any verdict but pass stops the release, unless a waiver covers it; warn: the verdict is only reported."""


class FloorGate(Gate):
    """The lower confidence bound of the metric must reach a value."""

    metric: str = "iou.dataset.macro"
    """A metric of evaluation/C/metrics.json, of pixels or of instances (instance.f1_50, instance.pq, instance.ap50 ...)."""
    at_least: float = Field(0.3, ge=0, le=1)
    """The value that the lower bound must reach."""
    reason: str = "a model below this score is not useful"
    """Why this gate exists, for the report."""


class ClassFloorGate(Gate):
    """The lower confidence bound of every class's score must reach a value."""

    ratio: Literal[
        "iou",
        "dice",
        "precision",
        "recall",
        "instance.f1_50",
        "instance.pq",
        "instance.ap",
        "instance.ap50",
        "instance.ap75",
    ] = "iou"
    """The score, over all test pixels of a class, or over all its instances (classes without instances are left out)."""
    at_least: float = Field(0.1, ge=0, le=1)
    """The value that the lower bound of each class must reach."""
    classes: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}  # noqa: RUF012  # pydantic copies it
    """Other values for single classes, such as {tumour: 0.6}; 0 leaves a class out."""
    reason: str = "a mean can hide a class that is never found"
    """Why this gate exists, for the report."""


class BaselineGate(Gate):
    """The winner must beat the best classical baseline: the lower bound of the paired difference is above `margin`."""

    metric: str = "iou.dataset.macro"
    """A metric of evaluation/C/metrics.json, of pixels or of instances (instance.f1_50, instance.pq, instance.ap50 ...)."""
    margin: float = 0.0
    """The lead over the baseline that the winner must have."""
    reason: str = "a network must be better than a classical method"
    """Why this gate exists, for the report."""


class ChampionGate(Gate):
    """The winner must not be worse than the champion: the lower bound of the paired difference is above -margin."""

    metric: str = "iou.dataset.macro"
    """A metric of evaluation/C/metrics.json, of pixels or of instances (instance.f1_50, instance.pq, instance.ap50 ...)."""
    margin: float = Field(0.02, ge=0)
    """The largest deficit for which the winner still counts as not worse."""
    superior: bool = False
    """true: the winner must be better, i.e. the lower bound is above 0, and `margin` is not used."""
    reason: str = "a release must not be worse for its users"
    """Why this gate exists, for the report."""


class SliceGate(Gate):
    """The winner must not be worse than the champion by more than `margin` in any slice of the test images."""

    metric: str = "iou.dataset.macro"
    """A metric of evaluation/C/metrics.json, of pixels or of instances (instance.f1_50, instance.pq, instance.ap50 ...)."""
    margin: float = Field(0.05, ge=0)
    """The largest deficit in a slice for which the winner still counts as not worse."""
    least_images: int = Field(10, ge=2)
    """Slices with fewer test images are left out."""
    unsure: Literal["block", "warn"] = "block"
    """The consequence if a slice has too few images for a decision. block: no release; warn: a warning, so that only a slice that is shown
    to be worse blocks."""
    reason: str = "a mean can hide that some images got worse"
    """Why this gate exists, for the report."""


class CalibrationGate(Gate):
    """The upper confidence bound of the expected calibration error must stay below a value."""

    at_most: float = Field(0.1, gt=0, le=1)
    """The largest upper bound that passes."""
    reason: str = "users rely on the confidence that a model reports"
    """Why this gate exists, for the report."""


Corruption = Literal["noise", "blur", "jpeg", "brightness", "contrast", "scale"]


class RobustnessGate(Gate):
    """Corruptions must not lower the score much: the upper bound of the drop of IoU (macro, dataset) stays below a value."""

    at_most: float = Field(0.1, gt=0, le=1)
    """The largest upper bound of the drop that passes, for each corruption."""
    corruptions: tuple[Corruption, ...] = ()
    """The corruptions to judge: noise, blur, jpeg, brightness, contrast, scale; empty: all that apply to the images."""
    severity: Literal["light", "medium", "strong"] = "medium"
    """Strength of the corruptions; `evaluate.robustness: quick` measures only medium."""
    reason: str = "images in use are often worse than the labelled ones"
    """Why this gate exists, for the report."""


class SizeGate(Gate):
    """The weights must not be larger than a limit."""

    at_most_mb: float = Field(100.0, gt=0)
    """Megabytes (10^6 bytes) of weights.safetensors."""
    reason: str = "the model must fit on the machine that runs it"
    """Why this gate exists, for the report."""


class LatencyGate(Gate):
    """The engine that serves must answer fast enough. `export` measures and judges it on the golden images."""

    at_most_ms: float = Field(1000.0, gt=0)
    """Limit in milliseconds for 95 % of the answers."""
    reason: str = "an answer that comes too late is of no use"
    """Why this gate exists, for the report."""


class DataGate(Gate):
    """The data must have passed validation and, unless `max_drift` is null, must not have drifted from the champion's training data."""

    max_warnings: int | None = Field(None, ge=0)
    """The largest number of findings of severity warning that passes; null: any number."""
    max_drift: float | None = Field(0.25, gt=0)
    """The largest population stability index that passes, over the quantities whose change is statistically significant; null: any."""
    reason: str = "scores on wrong data mean nothing"
    """Why this gate exists, for the report."""


class ImageCountGate(Gate):
    """Every class must be present in a minimum number of test images."""

    mode: Literal["block", "warn"] = "warn"
    """block: any verdict but pass stops the release, unless a waiver covers it; warn: the verdict is only reported."""
    at_least: int = Field(5, ge=1)
    """The smallest number of test images with a pixel of the class."""
    reason: str = "a score on few images is not reliable"
    """Why this gate exists, for the report."""


def _refuse_yaml_date(value: Any) -> Any:
    if isinstance(value, date):
        raise ValueError(f'a date in quotes, until: "{value}", because DVC cannot read YAML dates')
    return value


class Waiver(Section):
    """A waiver: until its date, a winner may be released although this gate blocks it. It is reported together with the verdict."""

    gate: Literal[
        "floor",
        "class_floor",
        "baseline",
        "champion",
        "slice",
        "calibration",
        "robustness",
        "size",
        "latency",
        "data",
        "test_size",
    ]
    """The gate that is waived."""
    name: str = Field(min_length=1)
    """The person who is responsible for the waiver."""
    reason: str = Field(min_length=1)
    """Why the gate may be missed."""
    until: Annotated[date, BeforeValidator(_refuse_yaml_date)]
    """The last day on which the waiver holds, in quotes: "2027-01-31"."""


class GateParams(Section):
    """The gates that the winner must pass before it is released; `null` switches a gate off."""

    floor: FloorGate | None = FloorGate()
    class_floor: ClassFloorGate | None = None
    baseline: BaselineGate | None = BaselineGate()
    champion: ChampionGate | None = ChampionGate()
    slice: SliceGate | None = None
    calibration: CalibrationGate | None = None
    robustness: RobustnessGate | None = None
    size: SizeGate | None = None
    latency: LatencyGate | None = None
    data: DataGate | None = None
    test_size: ImageCountGate | None = ImageCountGate()
    waivers: tuple[Waiver, ...] = ()

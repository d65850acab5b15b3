"""The section `gates` of params.yaml: what the winner must pass, and who may let it through all the same."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from segpipe.config.sections import Section


class Gate(Section):
    """What every gate has. `mode`: what comes of a verdict other than pass."""

    mode: Literal["block", "warn"] = "block"
    """block: no release unless it says pass, or a waiver covers it; warn: it is told, and nothing stops."""


class FloorGate(Gate):
    """The lower confidence bound of the metric must reach a value."""

    metric: str = "iou.dataset.macro"
    """A metric that evaluation/C/metrics.json holds, of pixels or of objects (instance.f1_50, instance.pq, instance.ap50 ...)."""
    at_least: float = Field(0.3, ge=0, le=1)
    """What the lower bound must reach."""
    reason: str = "below this a model is of no use"
    """Why this gate stands, for those who meet it."""


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
    """The score, over all test pixels of a class, or over all its objects (classes without any are left out)."""
    at_least: float = Field(0.1, ge=0, le=1)
    """What the lower bound of each class must reach."""
    classes: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}  # noqa: RUF012  # pydantic copies it
    """Values of single classes instead, e.g. {tumour: 0.6}; 0 leaves a class out."""
    reason: str = "a mean may hide a class that is never found"
    """Why this gate stands, for those who meet it."""


class BaselineGate(Gate):
    """The winner must beat the best classical baseline: the lower bound of the paired difference is above `margin`."""

    metric: str = "iou.dataset.macro"
    """A metric that evaluation/C/metrics.json holds, of pixels or of objects (instance.f1_50, instance.pq, instance.ap50 ...)."""
    margin: float = 0.0
    """By how much the baseline must be beaten."""
    reason: str = "a network that a classical method matches has learned nothing"
    """Why this gate stands, for those who meet it."""


class ChampionGate(Gate):
    """The winner must not be worse than what serves now: the lower bound of the paired difference is above -margin."""

    metric: str = "iou.dataset.macro"
    """A metric that evaluation/C/metrics.json holds, of pixels or of objects (instance.f1_50, instance.pq, instance.ap50 ...)."""
    margin: float = Field(0.02, ge=0)
    """How much worse still counts as not worse."""
    superior: bool = False
    """Whether the winner must be better instead: the lower bound is above 0, and `margin` has no say."""
    reason: str = "a release must not take anything away from its users"
    """Why this gate stands, for those who meet it."""


class SliceGate(Gate):
    """In no slice of the test images may the winner be worse than what serves now by more than `margin`."""

    metric: str = "iou.dataset.macro"
    """A metric that evaluation/C/metrics.json holds, of pixels or of objects (instance.f1_50, instance.pq, instance.ap50 ...)."""
    margin: float = Field(0.05, ge=0)
    """How much worse still counts as not worse, in each slice."""
    least_images: int = Field(10, ge=2)
    """Slices with fewer images are left out."""
    unsure: Literal["block", "warn"] = "block"
    """What comes of "cannot tell": block, or warn and stop for a loss alone that is shown."""
    reason: str = "a mean may hide that some images got worse"
    """Why this gate stands, for those who meet it."""


class CalibrationGate(Gate):
    """The upper confidence bound of the expected calibration error must stay below a value."""

    at_most: float = Field(0.1, gt=0, le=1)
    """What the upper bound may reach."""
    reason: str = "a confidence that is not kept misleads those who rely on it"
    """Why this gate stands, for those who meet it."""


Corruption = Literal["noise", "blur", "jpeg", "brightness", "contrast", "scale"]


class RobustnessGate(Gate):
    """Spoilt images must not cost much: the upper bound of the drop of IoU (macro, dataset) stays below a value."""

    at_most: float = Field(0.1, gt=0, le=1)
    """What the upper bound of the drop may reach, for each corruption."""
    corruptions: tuple[Corruption, ...] = ()
    """Which to judge: noise, blur, jpeg, brightness, contrast, scale; empty: all that suit the images."""
    severity: Literal["light", "medium", "strong"] = "medium"
    """How strong; `evaluate.robustness: quick` measures medium alone."""
    reason: str = "tomorrow's images are worse than those that were labelled"
    """Why this gate stands, for those who meet it."""


class SizeGate(Gate):
    """The weights must not be larger than this."""

    at_most_mb: float = Field(100.0, gt=0)
    """Megabytes (10^6 bytes) of weights.safetensors."""
    reason: str = "the model has to fit where it runs"
    """Why this gate stands, for those who meet it."""


class LatencyGate(Gate):
    """The engine that serves must answer fast enough. Judged by `export`, which measures it on the golden images."""

    at_most_ms: float = Field(1000.0, gt=0)
    """Milliseconds that 95 % of the answers may take."""
    reason: str = "an answer that comes late is none"
    """Why this gate stands, for those who meet it."""


class DataGate(Gate):
    """The data must have passed validation and, where wanted, not have moved from what production has learned from."""

    max_warnings: int | None = Field(None, ge=0)
    """The most findings of severity warning; null: any number."""
    max_drift: float | None = Field(0.25, gt=0)
    """The largest population stability index of a quantity whose change is no luck; null: any."""
    reason: str = "scores on data that are wrong say nothing"
    """Why this gate stands, for those who meet it."""


class ImageCountGate(Gate):
    """Every class must be in this many test images, or their scores are an anecdote."""

    mode: Literal["block", "warn"] = "warn"
    """block: no release unless it says pass, or a waiver covers it; warn: it is told, and nothing stops."""
    at_least: int = Field(5, ge=1)
    """Test images with a pixel of the class."""
    reason: str = "a score on few images is an anecdote"
    """Why this gate stands, for those who meet it."""


def _in_quotes(value: Any) -> Any:
    if isinstance(value, date):
        raise ValueError(f'a day in quotes, until: "{value}", for DVC reads no dates')
    return value


class Waiver(Section):
    """A gate that may be missed for a while: it turns a block into a waived one, and is told wherever the verdict is."""

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
    """The gate."""
    name: str = Field(min_length=1)
    """Who answers for it."""
    reason: str = Field(min_length=1)
    """Why it may be missed."""
    until: Annotated[date, BeforeValidator(_in_quotes)]
    """The last day on which it holds, in quotes: "2027-01-31"."""


class GateParams(Section):
    """What the winner must pass before it is released; `null` switches a gate off."""

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
    test_size: ImageCountGate | None = ImageCountGate()  # type: ignore[call-arg]
    waivers: tuple[Waiver, ...] = ()

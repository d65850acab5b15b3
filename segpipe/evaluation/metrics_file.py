"""metrics.json of an evaluated candidate: evaluation/NAME/metrics.json.

`evaluate` builds a `MetricsFile` and writes it; gates, the report and `segpipe compare` read it. The file is nested by the parts of
metric names (`iou.dataset.macro`), as `dvc metrics show` and `dvc metrics diff` want it. Scores that do not exist, and parts that were
not measured, have no key in the file and are None here. So do parts that earlier versions of segpipe did not write.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
)

from segpipe.errors import DataError
from segpipe.evaluation.cost import Cost
from segpipe.evaluation.metric_lookup import ScoreTable
from segpipe.files import write_json
from segpipe.json_models import read_model

METRICS_FILE = "metrics.json"

DIGITS = 6
"""Decimals of the scores in the file: more would differ between machines."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, validate_by_name=True)


class ConfidenceBounds(_Part):
    """The bounds of a confidence interval. Both are None if there are too few images to resample."""

    low: float | None = None
    high: float | None = None


class CalibrationBin(_Part):
    """Pixels of about the same confidence."""

    bin: int
    """0 is the bin of the lowest confidence."""
    pixels: int
    confidence: float
    """Mean confidence of the pixels."""
    right: float
    """Share of the pixels that have the right class."""


class CalibrationErrors(_Part):
    """Expected calibration error, maximum calibration error and reliability curve."""

    ece: float | None = None
    mce: float | None = None
    curve: list[CalibrationBin] = []
    """Without empty bins; a list, which DVC leaves out of its tables of metrics."""


class ThinnedCalibration(_Part):
    """Calibration on the same thinned pixels, before and after the temperature was applied."""

    before: CalibrationErrors | None = None
    shipped: CalibrationErrors | None = None


class CalibrationScores(_Part):
    """The calibration of the confidences on the test split (docs/metrics.md, "Probabilities")."""

    ece: float | None = None
    interval: ConfidenceBounds | None = None
    """Bounds of `ece`."""
    mce: float | None = None
    curve: list[CalibrationBin] | None = None
    thinned: ThinnedCalibration | None = None
    by_class: dict[str, float] | None = Field(None, validation_alias="class", serialization_alias="class")
    """Expected calibration error of each class's own probability, on the thinned pixels."""

    @field_validator("curve", mode="before")
    @classmethod
    def _read_earlier_curve(cls, curve: Any) -> Any:
        """Earlier versions wrote a mapping by bin, {"03": {...}}."""
        if not isinstance(curve, Mapping):
            return curve
        return [{"bin": name, **row} if isinstance(row, Mapping) else row for name, row in sorted(curve.items())]


class ClassDistances(_Part):
    """A surface score, as a mean over images."""

    macro: float
    """Mean over the classes of an image, then over images."""
    by_class: dict[str, float] = Field(validation_alias="class", serialization_alias="class")


class SurfaceScore(_Part):
    """A surface score by its level of averaging."""

    image: ClassDistances


class SurfaceScores(_Part):
    """Distances between the surfaces of truth and prediction (docs/metrics.md, "Boundaries")."""

    images: int
    """Number of images that were measured."""
    millimetres: int
    """1: lengths are in mm; 0: in pixels."""
    interval: dict[str, ConfidenceBounds] = {}
    """Bounds of the macro means, by score."""
    hd95: SurfaceScore | None = None
    assd: SurfaceScore | None = None
    nsd: SurfaceScore | None = None


class SliceScore(_Part):
    """The main metric on a part of the test images, with its bounds."""

    images: int
    score: float
    low: float | None = None
    high: float | None = None


class ClassInstanceScores(_Part):
    """Instance scores of one class."""

    ap: float | None = None
    recall: float | None = None
    f1_50: float | None = None
    pq: float | None = None
    sq: float | None = None
    rq: float | None = None


class InstanceScores(_Part):
    """Instance scores (docs/metrics.md, "Instances")."""

    ap: float | None = None
    ap50: float | None = None
    ap75: float | None = None
    ap_small: float | None = None
    ap_medium: float | None = None
    ap_large: float | None = None
    recall: float | None = None
    by_class: dict[str, ClassInstanceScores] | None = Field(None, validation_alias="class", serialization_alias="class")
    """Without the classes that have no instances."""
    f1_50: float | None = None
    """F1 at IoU 0.5 of the instances of all classes and images taken together."""
    challenge: float | None = None
    """Score of the 2018 Data Science Bowl, the mean over images."""
    pq: float | None = None
    """Panoptic quality, the mean over classes, as `sq` and `rq`."""
    sq: float | None = None
    rq: float | None = None
    n_true: int | None = Field(None, validation_alias="true", serialization_alias="true")
    n_predicted: int | None = Field(None, validation_alias="found", serialization_alias="found")
    interval: dict[str, ConfidenceBounds] | None = None
    """Bounds, by score."""


class CorruptionDrop(_Part):
    """The loss of the model on images that are corrupted in one way, at one severity."""

    score: float | None = None
    """The main metric on the corrupted images."""
    drop: float
    """The main metric on the original images minus `score`."""
    low: float | None = None
    high: float | None = None


class RobustnessScores(_Part):
    """The loss of the model on corrupted images (docs/metrics.md, "Corrupted images")."""

    images: int
    """Number of test images that were corrupted."""
    units: int
    """Number of images, or groups of images, that were resampled."""
    by: dict[str, dict[str, CorruptionDrop]]
    """By corruption, then by severity."""
    score: float | None = None
    """The main metric on the original images."""


class ScoresOnTest(_Part):
    """Everything that was measured on the test split."""

    images: int | None = None
    pixels: int | None = None
    """Pixels with a label."""
    iou: ScoreTable | None = None
    dice: ScoreTable | None = None
    precision: ScoreTable | None = None
    recall: ScoreTable | None = None
    accuracy: ScoreTable | None = None
    mcc: ScoreTable | None = None
    boundary_iou: ScoreTable | None = None
    interval: dict[str, dict[str, dict[str, ConfidenceBounds]]] | None = None
    """Bounds of the main metric, under the parts of its name."""
    surface: SurfaceScores | None = None
    slices: dict[str, dict[str, SliceScore]] | None = None
    """By attribute, then by the value of the attribute (`segpipe.evaluation.slices`)."""
    calibration: CalibrationScores | None = None
    instance: InstanceScores | None = None
    robustness: RobustnessScores | None = None


class FittedTemperature(_Part):
    """The temperature that was fitted on the validation split."""

    temperature: float


class FoldSummary(_Part):
    """Scores of the members of an ensemble, each on the fold that it was not trained on: mean and standard deviation."""

    mean: float
    sd: float


class ScoresOnVal(BaseModel):
    """Scores on the validation split: `scores` holds those that candidates are ranked by, nested by the parts of their names."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, ScoreTable]
    calibration: FittedTemperature | None = None
    folds: FoldSummary | None = None

    @property
    def scores(self) -> ScoreTable:
        """The scores, nested by the parts of their names; they stand next to the other keys in the file."""
        return ScoreTable({**self.__pydantic_extra__})

    @model_serializer(mode="wrap")
    def _scores_first(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keep the order that files have had so far."""
        content: dict[str, Any] = serialise(self)
        return {name: content[name] for name in self.__pydantic_extra__} | content


class ModelSize(_Part):
    """The size of the trained model."""

    megabytes: float
    """Size of the weights in megabytes (10^6 bytes)."""


class MetricsFile(_Part):
    """The content of metrics.json."""

    test: ScoresOnTest | None = None
    val: ScoresOnVal | None = None
    model: ModelSize | None = None
    engine: str | None = None
    """The engine that the model was scored on (`segpipe.inference.engines.checked_graph`); None in files of earlier versions."""
    cost: Cost | None = None

    @classmethod
    def read(cls, path: Path) -> MetricsFile:
        """Read a metrics.json.

        Raises:
            DataError: the file is missing or not valid.
        """
        fix = f"dvc repro -f evaluate@{path.parent.name}"
        return read_model(path, cls, error_type=DataError, kind="metrics file", fix=fix)

    @classmethod
    def parse(cls, content: bytes | None) -> MetricsFile:
        """Parse a metrics.json that another version of segpipe may have written; everything is None if it is missing or not valid."""
        try:
            return cls() if content is None else cls.model_validate_json(content)
        except ValidationError:
            return cls()

    def write(self, path: Path) -> None:
        """Write the file as JSON, atomically."""
        write_json(path, self.model_dump(by_alias=True, exclude_none=True))

    def val_score(self, name: str) -> float | None:
        """Return the score on the validation split by the name of its metric; None if it was not measured."""
        return None if self.val is None else self.val.scores.value(name)

    @property
    def temperature(self) -> float | None:
        """The temperature that was fitted on the validation split; None if none was."""
        return self.val.calibration.temperature if self.val and self.val.calibration else None

"""params.yaml as types: one source of defaults, of checks and of the words that explain a key.

Unknown keys are refused, with the nearest known one named. A candidate's own keys (encoder and so on) belong to its family
(`segpipe.models.registry`), which checks them; here they are carried.
"""

from __future__ import annotations

import difflib
import re
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from segpipe.errors import ConfigError
from segpipe.files import read_bytes

PARAMS_FILE = "params.yaml"


class Section(BaseModel):
    """A part of params.yaml: immutable, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


Pages = Literal["refuse", "channels", "volume"]


class DataParams(Section):
    """How `data/` is read."""

    max_megapixels: float = Field(400.0, gt=0, le=1000)
    """An image with more pixels (a volume with more voxels) is refused before it is decoded; 400 admits 20,000 x 20,000. Five to
    eight channels count as two images, and so on."""
    max_file_mb: float = Field(2048.0, gt=0)
    """A file with more bytes is refused before it is read."""
    pages: Pages = "refuse"
    """What the pages of a TIFF file are, where it has several: channels of an image, slices of a volume, or an error."""


class SplitParams(Section):
    """How images without a given split are dealt out."""

    method: Literal["hash", "stratified", "ranges"] = "hash"
    """hash: by content (or group), adding images moves none; stratified: also equal shares of the images with rare classes;
    ranges: contiguous blocks of each group, for the slices of a stack and the frames of a video."""
    val: float = Field(0.15, gt=0, lt=1)
    """Share of the images that choose the checkpoint and the winner."""
    test: float = Field(0.20, gt=0, lt=1)
    """Share of the images that judge the winner, and nothing else."""
    seed: int = 0
    """Another seed deals the images out anew."""
    gap: int = Field(0, ge=0)
    """For ranges: how many images before each block are left out, because they are too like those in it."""
    folds: int | None = Field(None, ge=2, le=100)
    """Into how many folds the images are dealt out besides (column `fold` of artifacts/splits.parquet); null: none."""

    @model_validator(mode="after")
    def _gap_between_ranges(self) -> SplitParams:
        if self.gap and self.method != "ranges":
            raise ValueError(f"a gap lies between ranges, and the method is {self.method}")
        return self

    @field_validator("test")
    @classmethod
    def _leaves_some(cls, test: float, info: Any) -> float:
        if test + info.data.get("val", 0) >= 1:
            raise ValueError("val and test together leave nothing to train on")
        return test


class ValidateParams(Section):
    """What Great Expectations demands of the manifest."""

    quarantine: bool = False
    """Whether images with an error of their own are left out, and listed, instead of stopping everything."""
    severity: dict[str, Literal["error", "warning", "note", "off"]] = {}
    """Overrides by expectation name (the names are on the validation page), e.g. {near_empty_masks: error}."""
    min_images: int = Field(1, ge=1)
    """The smallest number of images in each split."""
    min_foreground: float = Field(0.001, ge=0, le=1)
    """A mask with a smaller share of anything but background is nearly empty."""
    min_class_share: float = Field(0.001, ge=0, le=1)
    """A class with a smaller share of the training pixels is very rare."""
    near_duplicate_distance: int = Field(6, ge=0, le=16)
    """Images of two splits are suspected to be one where this many of the 64 bits of their perceptual hashes differ, or fewer."""
    near_duplicate_intensity: float = Field(0.06, gt=0, le=1)
    """And where means and deviations differ by no more than this share of the brightness, in every channel."""
    outlier_z: float = Field(8.0, gt=0)
    """An image is an outlier in brightness from this robust z-score of a channel's mean on, among images of its number type."""
    outlier_size: float = Field(4.0, gt=1)
    """An image is an outlier in size where an edge is this many times longer or shorter than usual."""
    blur_z: float = Field(5.0, gt=0)
    """An image is blurred where the logarithm of its sharpness lies this robust z-score below the others'."""
    tiny_object: float = Field(0.015, ge=0, le=1)
    """Objects are tiny where the median one is narrower than this share of a crop (of the shorter edge, of 256 pixels at most)."""
    drift_psi: float = Field(0.25, gt=0)
    """Population stability index against the data of the model in production that counts as drift."""
    drift_ks: float = Field(0.3, gt=0, le=1)
    """Kolmogorov-Smirnov distance against the data of the model in production that counts as drift."""
    drift_p_value: float = Field(0.001, gt=0, lt=1)
    """Both count only where the two-sample Kolmogorov-Smirnov test gives a smaller p-value, over all quantities (Bonferroni)."""
    many: int = Field(20, ge=1)
    """Where more images than this share a suspicion that is about the whole collection, one finding sums them up."""


Budget = Annotated[str, Field(pattern=r"^\s*\d+(\.\d+)?\s*(s|m|h|steps?|epochs?)\s*$")]


class TrainParams(Section):
    """What `plan` turns into a training plan. `null` means: chosen from the data."""

    budget: Budget = "2m"
    """How long to train each candidate: "90s", "10m", "2h", "500 steps" or "40 epochs"."""
    seed: int = Field(0, ge=0)
    """Starts every random choice: initial weights, crops, augmentation, dropout."""
    patch: int | None = Field(None, ge=32, multiple_of=32)
    """Edge of the square training crop in pixels."""
    batch: int | None = Field(None, ge=1)
    """Crops a step."""
    learning_rate: float | None = Field(None, gt=0)
    """Peak learning rate of AdamW, after warm-up and before the cosine."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay of AdamW."""
    dice_weight: float = Field(0.5, ge=0)
    """Weight of the Dice loss beside cross entropy."""
    class_balance: float = Field(0.5, ge=0, le=1)
    """Exponent of 1/frequency in the class weights of the cross entropy: 0 gives equal weights."""
    rare_crops: float = Field(0.5, ge=0, le=1)
    """Share of the crops that are centred on a pixel of a class drawn at random, so that rare classes are seen."""
    ema: float = Field(0.99, ge=0, lt=1)
    """Decay of the running average of weights that is evaluated and kept; 0 turns it off."""
    augment: Literal["off", "light", "medium", "strong"] = "medium"
    """How much flips, scale, rotation and colour vary the crops."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: whatever was fastest here and gave the same loss."""
    channels_last: bool | Literal["auto"] = "auto"
    """Memory format of the network; auto: measured."""
    compile: bool | Literal["auto"] = "auto"
    """torch.compile; auto: where the budget repays the compilation."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """Where training runs."""


class Candidate(BaseModel):
    """One competitor: a family and that family's own keys, with its own `train` settings over the common ones."""

    model_config = ConfigDict(extra="allow", frozen=True)
    family: str
    train: dict[str, Any] = {}

    @property
    def options(self) -> dict[str, Any]:
        """The keys that belong to the family."""
        return dict(self.model_extra or {})


class EvaluateParams(Section):
    """What `evaluate` writes beside the metrics."""

    gallery: int = Field(4, ge=0, le=50)
    """How many of the worst, the typical and the best images are drawn (each)."""
    resamples: int = Field(2000, ge=200, le=100_000)
    """Bootstrap resamples behind each interval."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Level of the intervals; a gate's one-sided bound is at the matching tail."""


class Gate(Section):
    """What every gate has. `mode`: what comes of a verdict other than pass."""

    mode: Literal["block", "warn"] = "block"
    """block: no release unless it says pass, or a waiver covers it; warn: it is told, and nothing stops."""


class FloorGate(Gate):
    """The lower confidence bound of the metric must reach a value."""

    metric: str = "iou.dataset.macro"
    """A metric that evaluation/C/metrics.json holds."""
    at_least: float = 0.3
    """What the lower bound must reach."""
    reason: str = "below this a model is of no use"
    """Why this gate stands, for those who meet it."""


class ClassFloorGate(Gate):
    """The lower confidence bound of every class's score must reach a value."""

    ratio: Literal["iou", "dice", "precision", "recall"] = "iou"
    """The score, over all test pixels of a class."""
    at_least: float = Field(0.1, ge=0, le=1)
    """What the lower bound of each class must reach."""
    classes: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    """Values of single classes instead, e.g. {tumour: 0.6}; 0 leaves a class out."""
    reason: str = "a mean may hide a class that is never found"
    """Why this gate stands, for those who meet it."""


class BaselineGate(Gate):
    """The winner must beat the best classical baseline: the lower bound of the paired difference is above `margin`."""

    metric: str = "iou.dataset.macro"
    """A metric that evaluation/C/metrics.json holds."""
    margin: float = 0.0
    """By how much the baseline must be beaten."""
    reason: str = "a network that k-means matches has learned nothing"
    """Why this gate stands, for those who meet it."""


class ChampionGate(Gate):
    """The winner must not be worse than what serves now: the lower bound of the paired difference is above -margin."""

    metric: str = "iou.dataset.macro"
    """A metric that evaluation/C/metrics.json holds."""
    margin: float = Field(0.02, ge=0)
    """How much worse still counts as not worse."""
    superior: bool = False
    """Whether the winner must be better instead: the lower bound is above 0, and `margin` has no say."""
    reason: str = "a release must not take anything away from its users"
    """Why this gate stands, for those who meet it."""


class SliceGate(Gate):
    """In no slice of the test images may the winner be worse than what serves now by more than `margin`."""

    metric: str = "iou.dataset.macro"
    """A metric that evaluation/C/metrics.json holds."""
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


class ImagesGate(Gate):
    """Every class must be in this many test images, or their scores are an anecdote."""

    mode: Literal["block", "warn"] = "warn"
    """block: no release unless it says pass, or a waiver covers it; warn: it is told, and nothing stops."""
    at_least: int = Field(5, ge=1)
    """Test images with a pixel of the class."""
    reason: str = "a score on few images is an anecdote"
    """Why this gate stands, for those who meet it."""


class Waiver(Section):
    """A gate that may be missed for a while: it turns a block into a waived one, and is told wherever the verdict is."""

    gate: Literal[
        "floor", "class_floor", "baseline", "champion", "slice", "calibration", "size", "latency", "data", "test_size"
    ]
    """The gate."""
    name: str = Field(min_length=1)
    """Who answers for it."""
    reason: str = Field(min_length=1)
    """Why it may be missed."""
    until: date
    """The last day on which it holds, e.g. 2027-01-31."""


class GateParams(Section):
    """What the winner must pass before it is released; `null` switches a gate off."""

    floor: FloorGate | None = FloorGate()
    class_floor: ClassFloorGate | None = None
    baseline: BaselineGate | None = BaselineGate()
    champion: ChampionGate | None = ChampionGate()
    slice: SliceGate | None = None
    calibration: CalibrationGate | None = None
    size: SizeGate | None = None
    latency: LatencyGate | None = None
    data: DataGate | None = None
    test_size: ImagesGate | None = ImagesGate()  # type: ignore[call-arg]
    waivers: tuple[Waiver, ...] = ()


class ExportParams(Section):
    """What leaves the pipeline."""

    golden: int = Field(4, ge=1, le=32)
    """How many test images travel with the bundle, to check every later copy of the model against."""
    min_agreement: float = Field(0.999, gt=0.5, le=1)
    """Share of pixels on which an engine must give the same class as the trained network."""


class ReleaseParams(Section):
    """What happens to a winner that passed."""

    name: str = Field("segmenter", pattern=r"^[a-z][a-z0-9-]*$")
    """The artifact's name in dvc.yaml and in the tags."""
    promote: Literal["auto", "manual"] = "auto"
    """auto: a winner that passed every gate and the blessing goes live; manual: `segpipe promote VERSION` does it."""
    stage: str = Field("prod", pattern=r"^[a-z][a-z0-9-]*$")
    """The stage that winners are promoted to, and that the champion gate compares with."""


class ServeParams(Section):
    """The endpoint."""

    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 opens it to the network."""
    port: int = Field(3000, ge=1, le=65535)
    """The port to listen on."""
    workers: int = Field(1, ge=1, le=64)
    """Server processes."""
    max_upload_mb: float = Field(32.0, gt=0)
    """A larger upload is refused while it streams in."""
    max_megapixels: float = Field(40.0, gt=0)
    """An image with more pixels is refused before it is decoded."""


class Params(BaseModel):
    """The whole of params.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    data: DataParams = DataParams()
    split: SplitParams = SplitParams()  # type: ignore[call-arg]
    validation: ValidateParams = Field(ValidateParams(), alias="validate")  # type: ignore[call-arg]
    train: TrainParams = TrainParams()  # type: ignore[call-arg]
    candidates: dict[Annotated[str, Field(pattern=r"^[a-zA-Z][\w-]*$")], Candidate] = Field(min_length=1)
    evaluate: EvaluateParams = EvaluateParams()  # type: ignore[call-arg]
    gates: GateParams = GateParams()
    export: ExportParams = ExportParams()  # type: ignore[call-arg]
    release: ReleaseParams = ReleaseParams()  # type: ignore[call-arg]
    serve: ServeParams = ServeParams()  # type: ignore[call-arg]

    def candidate(self, name: str) -> Candidate:
        """The candidate of this name, or an error that lists those there are."""
        if name not in self.candidates:
            raise ConfigError(
                "no such candidate", where=PARAMS_FILE, found=name, expected=" or ".join(self.candidates),
                fix=f"name one of them, or add `{name}:` under `candidates:`",
            )  # fmt: skip
        return self.candidates[name]

    def train_for(self, name: str) -> TrainParams:
        """The common training settings with the candidate's own over them."""
        own = self.candidate(name).train
        try:
            return TrainParams.model_validate(self.train.model_dump() | own)
        except ValidationError as error:
            raise config_error(error, f"{PARAMS_FILE}: candidates.{name}.train", TrainParams) from error


def config_error(error: ValidationError, where: str | Path, model: type[BaseModel]) -> ConfigError:
    """The first complaint of pydantic as one line: the key, the value found, what was expected, the nearest known key."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _keys_at(model, first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        fix = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(known)}"
        return ConfigError(f"unknown key `{key}`{more}", where=where, fix=fix)
    found = "nothing" if first["type"] == "missing" else repr(first["input"])[:80]
    message = re.sub(r"^Value error, ", "", first["msg"])
    expected = message[:1].lower() + message[1:]
    return ConfigError(
        f"`{key}` is wrong{more}" if key else f"wrong{more}", where=where, found=found, expected=expected
    )


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys that a model knows at a place such as ("gates", "floor")."""
    for part in (part for part in location if isinstance(part, str)):  # places in a list are passed over
        field = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        types = [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
        inner = next((t for t in types if isinstance(t, type) and issubclass(t, BaseModel)), None)
        if inner is None:
            return []
        model = inner
    return [f.alias or name for name, f in model.model_fields.items()]


def load_params(root: Path = Path()) -> Params:
    """Read and check `root/params.yaml`."""
    path = root / PARAMS_FILE
    if not path.exists():
        raise ConfigError(
            "no params.yaml here",
            where=root.resolve(),
            fix="go to a workspace, or make one: segpipe init DIR --data IMAGES",
        )
    return parse_params(read_bytes(path, 1 << 20).decode(), PARAMS_FILE)


def parse_params(text: str, where: str = PARAMS_FILE) -> Params:
    """Parse and check the text of a params.yaml."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"is not valid YAML: {error}", where=where) from error
    if not isinstance(content, dict):
        raise ConfigError(
            "holds no settings", where=where, found=type(content).__name__, expected="a mapping of sections"
        )
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise config_error(error, where, Params) from error


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def parse_budget(budget: str) -> tuple[Literal["seconds", "steps", "epochs"], float]:
    """'90s' -> ("seconds", 90.0), '500 steps' -> ("steps", 500.0), '40 epochs' -> ("epochs", 40.0)."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|h|step|epoch)s?\s*", budget)
    if not match or not float(match[1]):
        raise ConfigError(
            "not a training budget",
            found=repr(budget),
            expected='such as "90s", "10m", "2h", "500 steps" or "40 epochs"',
        )
    amount, unit = float(match[1]), match[2]
    if unit in _UNITS:
        return "seconds", amount * _UNITS[unit]
    return ("steps", amount) if unit == "step" else ("epochs", amount)

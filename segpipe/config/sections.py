"""The sections of params.yaml except the gates: types, defaults and help texts."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from segpipe.config import train_fields as shared
from segpipe.config.losses import CrossEntropyTerm, DiceTerm, LossParams
from segpipe.config.section import Section

Pages = Literal["refuse", "channels", "volume"]


class DataParams(Section):
    """Limits and options for reading `data/`."""

    max_megapixels: float = Field(400.0, gt=0, le=1000)
    """An image with more pixels (a volume with more voxels) is rejected before it is decoded; 400 allows 20,000 x 20,000. Five to
    eight channels count twice, nine to twelve three times, and so on."""
    max_file_mb: float = Field(2048.0, gt=0)
    """A file with more bytes is rejected before it is read."""
    pages: Pages = "refuse"
    """Meaning of the pages of a TIFF file with several pages: as channels of an image, as slices of a volume, or as an error."""


class SplitParams(Section):
    """Assignment of images to splits, for images that the dataset does not assign."""

    method: Literal["hash", "stratified", "ranges"] = "hash"
    """hash: by content (or group), so that new images do not move others to another split; stratified: each split also gets its share of
    the images with rare classes; ranges: contiguous blocks of each group, for the slices of a stack and the frames of a video."""
    val: float = Field(0.15, gt=0, lt=1)
    """Share of the images of the validation split, which chooses the checkpoint and the winner."""
    test: float = Field(0.20, gt=0, lt=1)
    """Share of the images of the test split, which judges the winner and is used for nothing else."""
    seed: int = 0
    """Another seed gives another assignment."""
    gap: int = Field(0, ge=0)
    """For ranges: how many images before each block are left out, because they are too similar to those in it. With `train.folds`, as many
    on either side of a fold are left out of the training of the network that this fold judges."""
    folds: int | None = Field(None, ge=2, le=100)
    """The number of folds that the images are also assigned to (column `fold` of artifacts/splits.parquet), for `train.folds` of the same
    number; null: none."""

    @model_validator(mode="after")
    def _gap_between_ranges(self) -> SplitParams:
        if self.gap and self.method != "ranges":
            raise ValueError(f"`method: ranges` if a gap is set, not {self.method}")
        return self

    @field_validator("test")
    @classmethod
    def _leaves_some(cls, test: float, info: Any) -> float:
        if test + info.data.get("val", 0) >= 1:
            raise ValueError("val + test below 1, so that images are left for training")
        return test


class ValidateParams(Section):
    """The limits of the data checks."""

    quarantine: bool = False
    """true: images with an error are left out and listed; false: they stop the pipeline."""
    severity: dict[str, Literal["error", "warning", "note", "off"]] = {}  # noqa: RUF012  # pydantic copies it
    """Other severities for single checks, by the names on the validation page, such as {near_empty_masks: error}."""
    min_images: int = Field(1, ge=1)
    """The smallest number of images in each split."""
    min_foreground: float = Field(0.001, ge=0, le=1)
    """A mask is nearly empty if the share of its pixels that are not background is smaller than this."""
    min_class_share: float = Field(0.001, ge=0, le=1)
    """A class is very rare if its share of the training pixels is smaller than this."""
    near_duplicate_distance: int = Field(6, ge=0, le=16)
    """Two images of different splits are suspected duplicates if at most this many of the 64 bits of their perceptual hashes differ, and
    their brightness agrees."""
    near_duplicate_intensity: float = Field(0.06, gt=0, le=1)
    """Brightness agrees if means and standard deviations differ by at most this share of the brightness, in every channel."""
    near_duplicate_likeness: float = Field(0.97, gt=0, le=1)
    """Images whose hashes or brightness differ more (shifted, cropped, brightened) are suspected duplicates if the correlation of their
    thumbnails, at the best alignment, is at least this."""
    outlier_z: float = Field(8.0, gt=0)
    """An image is an outlier in brightness if the mean of a channel has at least this robust z-score among the images of its data type."""
    outlier_size: float = Field(4.0, gt=1)
    """An image is an outlier in size if an edge is this many times longer or shorter than usual."""
    blur_z: float = Field(5.0, gt=0)
    """An image is blurred if the logarithm of its sharpness is this robust z-score below that of the others."""
    tiny_object: float = Field(0.015, ge=0, le=1)
    """Instances are tiny if the median one is narrower than this share of the crop that `plan` chooses by default."""
    drift_psi: float = Field(0.25, gt=0)
    """Population stability index, against the training data of the champion, from which a change counts as drift."""
    drift_ks: float = Field(0.3, gt=0, le=1)
    """Kolmogorov-Smirnov distance, against the training data of the champion, from which a change counts as drift."""
    drift_p_value: float = Field(0.001, gt=0, lt=1)
    """Both count only if the two-sample Kolmogorov-Smirnov test gives a smaller p-value, corrected for the number of quantities
    (Bonferroni)."""
    many: int = Field(20, ge=1)
    """If more images than this have the same warning, and the warning is about the collection as a whole, one finding sums them up."""


_BUDGET_PATTERN = re.compile(r"\s*\d+(\.\d+)?\s*(s|m|h|steps?|epochs?)\s*")
BUDGET_EXAMPLES = 'such as "90s", "10m", "2h", "500 steps" or "40 epochs"'


def _check_budget(budget: str) -> str:
    if not _BUDGET_PATTERN.fullmatch(budget):
        raise ValueError(BUDGET_EXAMPLES)
    return budget


Budget = Annotated[str, AfterValidator(_check_budget)]

PatchEdge = Annotated[int, Field(ge=8, le=1024)]
VoxelEdge = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=1e-3, le=1e3)]
Intensity = Annotated[float, Field(allow_inf_nan=False)]


def _off(value: Any) -> Any:
    """Turn false into "off": YAML 1.1 reads `off` without quotes as false."""
    return "off" if value is False else value


def _rising(window: tuple[float, float]) -> tuple[float, float]:
    if window[0] >= window[1]:
        raise ValueError("a low end below the high end")
    return window


Window = Annotated[tuple[Intensity, Intensity], AfterValidator(_rising)]


class TrainParams(Section):
    """The settings that `plan` turns into a training plan. `null` means: chosen from the data."""

    budget: Budget = "2m"
    """Time to plan and train each candidate: "90s", "10m", "2h", "500 steps" or "40 epochs"."""
    seed: int = Field(0, ge=0)
    """Seed of every random choice: initial weights, crops, augmentation, dropout."""
    folds: int | None = Field(None, ge=2, le=20)
    """Cross-validation: this many networks share the budget, each trained on the images of train and val without one fold of them, and
    the model is the mean of their outputs. Inference takes that many times as long. null: one network, trained on train."""
    patch: shared.Patch | None = None
    """Edge of the square training crop in pixels; for volumes, of the cube."""
    patch3d: tuple[PatchEdge, PatchEdge, PatchEdge] | None = None
    """For volumes: edges of the training crop in voxels (depth, height, width), rounded up to what the network can halve evenly."""
    spacing: tuple[VoxelEdge, VoxelEdge, VoxelEdge] | None = None
    """For volumes: the voxel size in mm (depth, height, width) to which they are resampled; null: the median of the training volumes."""
    flips: Literal["auto"] | list[Literal["depth", "height", "width"]] = "auto"
    """For volumes: axes along which crops may be mirrored; auto: those whose two ends look alike, so that the left side of a body is
    not mistaken for the right."""
    batch: shared.Batch | None = None
    """Crops per step, on all devices together."""
    accumulate: shared.Accumulate = 1
    learning_rate: shared.LearningRate | Literal["auto"] | None = None
    """Peak learning rate, after the warm-up and before the schedule lowers it; null: derived from the optimizer and the batch size;
    auto: by a range test on real batches, which takes at most 5 % of the budget."""
    encoder_rate: shared.EncoderRate = 1.0
    optimizer: Literal["auto", "muon", "adamw", "adam", "sgd"] = "auto"
    """The optimiser; auto: muon if its additional computation is small compared with a step, otherwise adamw."""
    momentum: shared.Momentum = 0.9
    nesterov: shared.Nesterov = True
    weight_decay: shared.WeightDecay | None = None
    """Weight decay, applied to kernels only; null: 0.1 for muon and 0.01 for adamw (decoupled), 0.00001 for adam and 0.0001 for sgd
    (added to the gradient)."""
    schedule: shared.Schedule = "cosine"
    warmup: float | None = Field(None, ge=0, lt=1)
    """Share of the steps in which the learning rate rises to its peak; null: 5 %, and 100 steps at most."""
    loss: shared.Loss = LossParams(cross_entropy=CrossEntropyTerm(), dice=DiceTerm(weight=0.5))
    normalisation: Literal["auto", "dataset", "image"] | Window = "auto"
    """Normalisation of intensities. dataset: the window from the 0.5th to the 99.5th percentile of the typical training image, then
    the mean and standard deviation of all images; image: the same for each image separately, for intensities without a common unit;
    [low, high]: clipped to this window, for example [-160, 240] for computed tomography. auto: the normalisation of the pretrained
    weights if it fits the images; otherwise dataset, or image if the intensities of volumes differ too much."""
    class_balance: float = Field(0.5, ge=0, le=1)
    """Exponent of 1/frequency in the class weights of the terms based on cross entropy: 0 gives equal weights."""
    class_weights: dict[str, Weight] | None = Field(None, min_length=1)
    """Weights to use instead of `class_balance`, for all classes by name, e.g. {background: 1, nucleus: 3}. Only their ratios matter:
    they are scaled so that a pixel of the training split has a weight of 1 on average."""
    rare_crops: shared.RareCrops = 0.5
    validations: int | None = Field(None, ge=1, le=1000)
    """Number of validations during training, evenly spaced: the weights with the best score are kept. null: ten, and with a budget of
    time as many as fit into a tenth of it (below five minutes, a twentieth)."""
    patience: shared.Patience = None
    freeze_encoder: float | None = Field(None, ge=0, lt=1)
    """Share of the steps, from the first, for which the encoder is frozen; null: the family's default (0 for most), and 0 for an
    encoder with random weights."""
    progressive: Annotated[Literal["off", "crops", "scale"], BeforeValidator(_off)] = "off"
    """Smaller crops in the first steps, which makes them several times cheaper: crops of half the edge (crops), or the same
    part of the image at half the resolution (scale)."""
    progressive_share: float = Field(0.5, gt=0, lt=1)
    """Share of the steps that see the smaller crops of `progressive`."""
    cleaning: shared.Cleaning = "auto"
    tta: shared.Tta = "none"
    ema: shared.Ema = 0.99
    augment: Annotated[shared.Augment, BeforeValidator(_off)] = "medium"
    orientation: Literal["auto", "upright", "free"] = "auto"
    """For images: whether they have an up and a down. free: crops are also flipped vertically and rotated by quarter turns. auto: free
    if the upper and the lower third contain the same classes."""
    elastic: shared.Elastic = False
    workers: int | None = Field(None, ge=0, le=64)
    """Processes per device that prepare batches; 0: the training process prepares them itself. null: the number with which steps are
    fastest."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Floating-point precision. auto: whichever was fastest on this machine and gave the same loss. fp16, with loss scaling, is for
    GPUs without bf16."""
    channels_last: bool | Literal["auto"] = "auto"
    """Memory format of the network; auto: measured."""
    compile: bool | Literal["auto"] = "auto"
    """Use of torch.compile; auto: if it saves more time within the budget than the compilation costs."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """The device to train on; auto: a GPU if there is one."""
    devices: int = Field(1, ge=1, le=1024)
    """Processes on each machine that share each batch, one per GPU (or this many on the CPU). `torchrun -m segpipe train C`
    overrides it."""
    num_nodes: int = Field(1, ge=1, le=1024)
    """Machines with `devices` processes each; start torchrun on each of them."""

    @model_validator(mode="after")
    def _check_warmup(self) -> TrainParams:
        if self.warmup and self.schedule == "one_cycle":
            raise ValueError("no `warmup` with one_cycle, which has its own rise")
        return self


class Candidate(BaseModel):
    """A candidate: a family, the keys of that family, and `train` settings that override the common ones."""

    model_config = ConfigDict(extra="allow", frozen=True)
    family: str
    """The name of the family; may be left out if `factory` is set, and is then `custom`."""
    train: dict[str, Any] = {}
    postprocess: Literal["auto", "off", "components", "watershed", "distance"] = "auto"
    """Method that finds instances in the output of a semantic family; auto: watershed if the dataset has instances. distance: the network
    learns one more channel, the distance of a pixel from the border of its instance, and the watershed works on that."""

    @model_validator(mode="before")
    @classmethod
    def _factory_implies_custom(cls, values: Any) -> Any:
        is_custom = isinstance(values, dict) and "factory" in values and "family" not in values
        return {"family": "custom", **values} if is_custom else values

    @property
    def options(self) -> dict[str, Any]:
        """The keys that belong to the family, not checked yet."""
        return dict(self.model_extra or {})


class EvaluateParams(Section):
    """Scoring and ranking of candidates."""

    rank_by: str = "iou.dataset.macro"
    """The score on the validation split that chooses the winner, of pixels or, if the dataset has instances, of instances:
    instance.f1_50, instance.pq, instance.ap, instance.ap50 and the like."""
    gallery: int = Field(4, ge=0, le=50)
    """Number of worst, typical and best images that are drawn, each."""
    resamples: int = Field(10_000, ge=200, le=100_000)
    """Bootstrap resamples per interval."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Confidence level of the intervals; the one-sided bound of a gate is one end of such an interval."""
    surface: bool | Literal["auto"] = "auto"
    """Measurement of surface distances (Hausdorff 95, mean distance, surface Dice); auto: for images of up to 16.7 million pixels."""
    surface_tolerance: float = Field(2.0, gt=0)
    """The distance within which surfaces count as equal in the surface Dice: in mm if files give the pixel size, else in pixels."""
    robustness: Annotated[Literal["off", "quick", "full"], BeforeValidator(_off)] = "off"
    """Additional scores of corrupted test images: noise, blur, JPEG compression, brightness, contrast and scale. quick: 24
    images, one severity, six more predictions each; full: all images, three severities, eighteen more predictions each."""


class ExportParams(Section):
    """Export of the winner."""

    golden: int = Field(4, ge=1, le=32)
    """Number of test images that are stored in the bundle with their masks, to check later copies of the model."""
    min_agreement: float = Field(0.999, gt=0.5, le=1)
    """Share of pixels for which an engine must give the same class as the trained network."""
    int8: Annotated[Literal["off", "auto"], BeforeValidator(_off)] = "off"
    """auto: the network is also quantised to 8-bit integers, calibrated on training images, and this version serves if it is faster than
    all other engines and costs no more than `int8_max_drop`. The scores of the evaluation and the gates remain those of float32."""
    int8_max_drop: float = Field(0.01, ge=0, lt=1)
    """Largest drop of macro IoU and macro Dice on the validation split by int8; `min_agreement` does not apply to int8."""


class ReleaseParams(Section):
    """Release of a winner that passed all gates."""

    name: str = Field("segmenter", pattern=r"^[a-z][a-z0-9-]*$")
    """Name of the model in dvc.yaml and in the Git tags."""
    promote: Literal["auto", "manual"] = "auto"
    """auto: a release is promoted at once; manual: `segpipe promote VERSION` promotes it."""
    stage: str = Field("prod", pattern=r"^[a-z][a-z0-9-]*$")
    """The stage that releases are promoted to; the version in it is the champion."""


class ServeParams(Section):
    """The HTTP endpoint."""

    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 opens it to the network."""
    port: int = Field(3000, ge=1, le=65535)
    """The port to listen on."""
    workers: int = Field(1, ge=1, le=64)
    """Number of server processes."""
    max_upload_mb: float = Field(32.0, gt=0)
    """A larger upload is rejected while it is received."""
    max_megapixels: float = Field(40.0, gt=0)
    """An image with more pixels is rejected before it is decoded."""
    example: bool = True
    """Whether `GET /v1/example` returns a test image to anyone who asks; set it to false if the images are private."""

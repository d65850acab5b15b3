"""The plan of a candidate, plans/C.json: everything that `train` needs.

There are two types. A `NetworkPlan` has a recipe (what is computed) and an execution (how this machine computes it); a
`ClassicalPlan` has neither, because a classical model is fitted once. `segpipe.training.planning.planner` makes plans, and
`segpipe.training.machine.check_plan` says whether this machine can follow one.
"""

from __future__ import annotations

import json
import operator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from segpipe.config import train_fields as shared
from segpipe.errors import MissingError
from segpipe.files import read_json, sha256_bytes, write_text
from segpipe.inference.outputs import Outputs
from segpipe.inference.postprocess import Method
from segpipe.inference.preprocess import Normalisation
from segpipe.json_models import read_model
from segpipe.labels import Labelling, labelling_of
from segpipe.models.registry import Family, get_family
from segpipe.models.semantic.encoder_decoders import shrink_factor


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StepSetting(_Part):
    """The precision, memory format and compilation of a training step."""

    precision: Literal["fp32", "bf16", "fp16"]
    channels_last: bool
    compile: bool = False

    def __str__(self) -> str:
        words = [
            self.precision,
            "channels-last" if self.channels_last else "contiguous",
            "compiled" if self.compile else "",
        ]
        return " ".join(word for word in words if word)


class Timing(_Part):
    """The measured speed of a setting: steps of the real network on a real batch."""

    setting: StepSetting
    ms_per_step: float | None
    """The fastest of the steps that were timed; None if the setting was not timed."""
    loss_difference: float | None
    """Relative difference of the first loss from that of fp32 contiguous."""
    verdict: str


class Machine(_Part):
    """The machine on which a plan was measured."""

    device: Literal["cpu", "cuda"]
    processor: str
    threads: int = Field(ge=1)
    memory_mib: int
    torch: str


class Execution(_Part):
    """The computation of the steps on the machine that the plan was made for."""

    setting: StepSetting
    devices: int = Field(1, ge=1)
    """Processes on each machine that share each batch, one per device."""
    nodes: int = Field(1, ge=1)
    """Machines."""
    workers: int = Field(ge=0)
    """Processes that prepare batches."""
    ms_per_step: float
    """Milliseconds per step of the whole loop, including the preparation of batches."""
    step_ms: dict[str, float] = {}
    """The parts of `ms_per_step`: loader, augmentation, forward, backward, optimiser; and exchange, if several processes train."""
    ms_per_validation: float
    peak_memory_mib: int
    timings: list[Timing]
    machine: Machine


class FirstCrops(_Part):
    """The crops of the first steps of a progressive training (`segpipe.training.sampling.progressive`)."""

    steps: int = Field(ge=0)
    edges: tuple[int, ...]
    """Size of a crop as the network sees it: (H, W) or (D, H, W)."""
    shrink: int = Field(1, ge=1)
    """Pixels of the image, along each axis, that become one pixel of the crop."""


class Recipe(_Part):
    """The computation itself: samples, loss, optimiser and number of steps. It is the same on every machine.

    Fields without a docstring are settings of params.yaml, described in `segpipe.config`.
    """

    steps: int = Field(ge=1)
    patch: shared.Patch
    """Edge of the training crop in pixels; for volumes the longest edge, rounded up (`Plan.volume` has all three)."""
    batch: shared.Batch
    accumulate: shared.Accumulate = 1
    learning_rate: shared.LearningRate
    encoder_rate: shared.EncoderRate = Field(1.0, exclude_if=lambda rate: rate == 1)
    optimizer: Literal["muon", "adamw", "adam", "sgd"]
    momentum: shared.Momentum
    nesterov: shared.Nesterov
    weight_decay: shared.WeightDecay
    schedule: shared.Schedule
    warmup_steps: int = Field(ge=0)
    freeze_steps: int = Field(0, ge=0)
    """The number of first steps for which the encoder is frozen."""
    first: FirstCrops | None = Field(None, exclude_if=operator.not_)
    """None: all steps see full crops."""
    clip_norm: float = Field(gt=0)
    loss: shared.Loss
    class_weights: list[float]
    overlapping: bool = Field(False, exclude_if=operator.not_)
    """True if a pixel may have several classes; each class is then learned independently."""
    distance: bool = Field(False, exclude_if=operator.not_)
    """True if the network learns one more channel than there are classes (`segpipe.training.sampling.distance`)."""
    rare_crops: shared.RareCrops
    ema: shared.Ema
    augment: shared.Augment
    free_orientation: bool
    """True if the images have no up and down, so that crops are also flipped vertically and rotated by quarter turns."""
    elastic: shared.Elastic = Field(False, exclude_if=operator.not_)
    cleaning: shared.Cleaning = "none"
    tta: shared.Tta = "none"
    patience: shared.Patience = None
    val_every: int = Field(ge=1)
    val_images: int | None = Field(None, ge=1, exclude_if=operator.not_)
    """Images of the validation split, evenly spread, that validations and the choices for the finished model use; None: all."""
    checkpoint_every: int = Field(ge=1)

    @property
    def labelling(self) -> Labelling:
        """The meaning of the labels of crops."""
        return labelling_of(len(self.class_weights), self.overlapping)


class VolumeGrid(_Part):
    """The grid of voxels on which a model works; axes are (D, H, W)."""

    patch: tuple[int, int, int]
    """Voxels that the network sees at once: the training crop, and the window of inference."""
    spacing: tuple[float, float, float] | None
    """Voxel size in mm to which volumes are resampled; None if the files do not state a size and voxels are used as they are."""
    flips: tuple[bool, bool, bool]
    """The axes along which crops are mirrored."""


class Folds(_Part):
    """Cross-validation: the images of train and val are divided into folds, and one member is trained without each fold."""

    count: int = Field(ge=2)
    dealt: Literal["split", "groups", "blocks"]
    """split: as `split.folds` did; groups: evenly, groups whole; blocks: each stack in equal blocks."""
    gap: int = Field(0, ge=0, exclude_if=operator.not_)
    """Images at most this many positions from a fold, in their stack, train no member that the fold judges (`split.gap`)."""


class Plan(_Part):
    """The fields of every plan. `Plan.read` returns a `NetworkPlan` or a `ClassicalPlan`."""

    format: Literal[1] = 1
    candidate: str
    family: str
    options: dict[str, Any]
    """The family's own settings, with defaults filled in."""
    seed: int = Field(ge=0)
    classes: int = Field(ge=2)
    dtype: str
    """Number type of the stored images."""
    normalisation: Normalisation
    volume: VolumeGrid | None = None
    """None if the dataset holds images and not volumes."""
    postprocess: Method | None = None
    """The method that finds instances; None if none are wanted."""
    encoder_sha256: str | None = None
    """Identity of the pretrained weights that training starts from."""
    inherited: tuple[int | None, ...] | None = Field(None, exclude_if=operator.not_)
    """For each output channel of a network that continues from a release: the channel of the release whose weights it starts with,
    or None if it starts from new weights."""
    folds: Folds | None = Field(None, exclude_if=operator.not_)
    """Set if the model is an ensemble: recipe and execution are then those of each member. None: the model is one network."""
    recipe: Recipe | None = None
    """Declared here, and narrowed by each type of plan, so that its position in the file is always the same."""
    execution: Execution | None = None
    reasons: dict[str, str]
    """For each choice, the reason in words."""
    data_hash: str
    settings: dict[str, Any] | None = Field(None, exclude_if=operator.not_)
    """The candidate's settings in params.yaml (`Params.explicit_settings`) when it was planned. None: the plan does not record them."""

    @model_validator(mode="before")
    @classmethod
    def _check_type(cls, values: Any) -> Any:
        if cls is Plan:
            raise TypeError("a plan is a NetworkPlan or a ClassicalPlan; Plan.read returns the right one")
        return values

    @property
    def model_family(self) -> Family:
        """The registered family that `family` names."""
        return get_family(self.family)

    @property
    def shrink(self) -> int:
        """Pixels of an image, along each axis, that become one pixel for the network."""
        return shrink_factor(self.model_family.config.model_validate(self.options))

    @property
    def stride(self) -> int:
        """Height and width of the network's input are multiples of this number of pixels."""
        return self.model_family.stride * self.shrink

    @property
    def outputs(self) -> Outputs:
        """The output channels of the model."""
        return Outputs(self.classes)

    @property
    def exact(self) -> dict[str, Any]:
        """The plan as JSON, without measurements, reasons and settings: what is computed, and how."""
        measured = {"timings", "ms_per_step", "step_ms", "ms_per_validation", "peak_memory_mib"}
        return self.model_dump(mode="json", exclude={"reasons": True, "settings": True, "execution": measured})

    @property
    def sha256(self) -> str:
        """Identity of the plan: the hash of `exact`."""
        return sha256_bytes(json.dumps(self.exact).encode())

    def write(self, path: Path) -> None:
        """Write the plan atomically, as indented JSON that diffs well."""
        write_text(path, self.model_dump_json(indent=2) + "\n")

    @staticmethod
    def read(path: Path) -> NetworkPlan | ClassicalPlan:
        """Read and validate a plan.

        Raises:
            MissingError: There is no such file.
            ConfigError: The file does not hold a valid plan.
        """
        if not path.exists():
            raise MissingError("no plan here", where=path, fix=f"segpipe plan {path.stem}")
        content = read_json(path)
        has_recipe = isinstance(content, dict) and content.get("recipe") is not None
        return read_model(path, NetworkPlan) if has_recipe else read_model(path, ClassicalPlan)


class ClassicalPlan(Plan):
    """The plan of a classical model, which is fitted once to the training split."""

    recipe: None = None
    execution: None = None


class RecipePlan(Plan):
    """The plan of a network as far as it does not depend on a machine.

    Planning measures a plan of this type; `NetworkPlan` adds the result. Functions that need the recipe alone accept both.
    """

    recipe: Recipe

    @property
    def outputs(self) -> Outputs:
        """The output channels of the network."""
        return Outputs(self.classes, self.recipe.distance)

    @property
    def crop_edges(self) -> tuple[int, ...]:
        """Size of a full training crop in pixels or voxels: (H, W) or (D, H, W)."""
        return self.volume.patch if self.volume else (self.recipe.patch, self.recipe.patch)


class NetworkPlan(RecipePlan):
    """The complete plan of a network."""

    execution: Execution


def explain(plan: Plan) -> str:
    """Return the reasons of a plan as lines of text and, for a network, the table of the settings that were timed."""
    width = max(len(name) for name in plan.reasons)
    lines = [f"{name:<{width}}  {reason}" for name, reason in plan.reasons.items()]
    if isinstance(plan, NetworkPlan):
        lines += ["", f"{'setting':<32}{'ms per step':>11}  {'loss vs fp32':>12}  verdict"]
        for timing in plan.execution.timings:
            ms = "-" if timing.ms_per_step is None else f"{timing.ms_per_step:.0f}"
            difference = "-" if timing.loss_difference is None else f"{timing.loss_difference:+.2%}"
            lines.append(f"{timing.setting!s:<32}{ms:>11}  {difference:>12}  {timing.verdict}")
    return "\n".join(lines)

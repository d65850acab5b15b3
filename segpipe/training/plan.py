"""The plan of a candidate: everything `train` needs. `Plan` is what plans/C.json holds; `planner` makes one, `machine.check_plan`
says whether this machine can follow it.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from segpipe.config import AugmentStrength, LossParams
from segpipe.errors import ConfigError, MissingError
from segpipe.files import sha256_bytes, write_text
from segpipe.inference.outputs import Outputs
from segpipe.inference.postprocess import Method
from segpipe.inference.preprocess import Normalisation
from segpipe.inference.tta import TTA
from segpipe.json_models import read_model
from segpipe.labels import Labelling, labelling_of
from segpipe.models.registry import Family, get_family
from segpipe.models.semantic.encoder_decoders import shrink_factor

_NOT_SET = "not set"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StepSetting(_Part):
    """How a training step is computed."""

    precision: Literal["fp32", "bf16", "fp16"]
    channels_last: bool
    compile: bool = False

    def __str__(self) -> str:
        words = [
            self.precision,
            "channels-last" if self.channels_last else "contiguous",
            "compiled" if self.compile else "",
        ]
        return " ".join(w for w in words if w)


class Timing(_Part):
    """What was measured of a setting: steps of the real network on a real batch."""

    setting: StepSetting
    ms_per_step: float | None
    """Best of the steps measured; None where it was not timed."""
    loss_difference: float | None
    """Relative difference of the first loss from fp32 contiguous."""
    verdict: str


class Machine(_Part):
    """What a plan was measured on."""

    device: Literal["cpu", "cuda"]
    processor: str
    threads: int = Field(ge=1)
    memory_mib: int
    torch: str


class Execution(_Part):
    """How the steps are computed on the machine that the plan was made for."""

    setting: StepSetting
    devices: int = Field(1, ge=1)
    """Processes that share each batch, one a device, on each machine."""
    nodes: int = Field(1, ge=1)
    """Machines."""
    workers: int = Field(ge=0)
    """Processes that prepare batches."""
    ms_per_step: float
    """Of the whole loop, batches included."""
    step_ms: dict[str, float] = {}
    """The parts of `ms_per_step`: loader, augmentation, forward, backward, optimiser; exchange, between processes."""
    ms_per_validation: float
    peak_memory_mib: int
    timings: list[Timing]
    machine: Machine


class FirstCrops(_Part):
    """The crops of the first steps, where training is progressive (`segpipe.training.planning.progressive`)."""

    steps: int = Field(ge=0)
    edges: tuple[int, ...]
    """Of a crop as the network sees it: (H, W) or (D, H, W)."""
    shrink: int = Field(1, ge=1)
    """Pixels of the image, along each axis, that become one of the crop."""


class Recipe(_Part):
    """What is computed: the samples, the loss, the optimiser and how long. The same on every machine."""

    steps: int = Field(ge=1)
    patch: int = Field(ge=32, multiple_of=32)
    """Edge of the training crop; of volumes the longest edge, rounded up (`Plan.volume` has all three)."""
    batch: int = Field(ge=1)
    accumulate: int = Field(1, ge=1)
    """Parts in which a batch is computed, one after another (`segpipe.training.memory` says what stays equal)."""
    learning_rate: float = Field(gt=0)
    encoder_rate: float = Field(1.0, gt=0, exclude_if=lambda rate: rate == 1)
    """What the learning rate is multiplied by for the encoder."""
    optimizer: Literal["muon", "adamw", "adam", "sgd"]
    momentum: float = Field(ge=0, lt=1)
    nesterov: bool
    weight_decay: float = Field(ge=0)
    schedule: Literal["cosine", "poly", "one_cycle", "constant"]
    warmup_steps: int = Field(ge=0)
    freeze_steps: int = Field(0, ge=0)
    """The first steps, in which the encoder stays as it came."""
    first: FirstCrops | None = Field(None, exclude_if=operator.not_)
    """None: all steps see full crops."""
    clip_norm: float = Field(gt=0)
    loss: LossParams
    class_weights: list[float]
    overlapping: bool = Field(False, exclude_if=operator.not_)
    """A pixel may have several classes; each is then learned by itself."""
    distance: bool = Field(False, exclude_if=operator.not_)
    """The network learns one more channel than there are classes (`segpipe.training.sampling.distance`)."""
    rare_crops: float = Field(ge=0, le=1)
    ema: float = Field(ge=0, lt=1)
    augment: AugmentStrength
    free_orientation: bool
    """The images have no up and down: flips and quarter turns make more of them."""
    elastic: bool = Field(False, exclude_if=operator.not_)
    """Crops are bent, too, as soft things are."""
    cleaning: Literal["auto", "none"] = "none"
    tta: TTA = "none"
    """Of the finished model; validations during training look at each image once."""
    patience: int | None = Field(None, ge=1)
    """Validations without a better score after which training ends."""
    val_every: int = Field(ge=1)
    checkpoint_every: int = Field(ge=1)

    @property
    def labelling(self) -> Labelling:
        """What the labels of crops mean."""
        return labelling_of(len(self.class_weights), self.overlapping)


class VolumeGrid(_Part):
    """How a model looks at volumes; axes are (D, H, W)."""

    patch: tuple[int, int, int]
    """Voxels that the network sees at once: the training crop, and the window of inference."""
    spacing: tuple[float, float, float] | None
    """Size of a voxel in mm that volumes are brought to; None where the files tell no size, and voxels are taken as they come."""
    flips: tuple[bool, bool, bool]
    """Along which axes crops are mirrored."""


class Folds(_Part):
    """Cross-validation: the images of train and val in so many folds, with a member for each that is trained without it."""

    count: int = Field(ge=2)
    dealt: Literal["split", "groups", "blocks"]
    """split: as `split.folds` did; groups: evenly, groups whole; blocks: each stack in equal blocks."""
    gap: int = Field(0, ge=0, exclude_if=operator.not_)
    """Images within so many places of a fold, in their stack, train no member that the fold judges (`split.gap`)."""


class Plan(_Part):
    """plans/C.json. A classical family has neither recipe nor execution: it is fitted to the training split."""

    format: Literal[1] = 1
    candidate: str
    family: str
    options: dict[str, Any]
    """The family's own settings, defaults filled in."""
    seed: int = Field(ge=0)
    classes: int = Field(ge=2)
    dtype: str
    """Of the stored images."""
    normalisation: Normalisation
    volume: VolumeGrid | None = None
    """Where the dataset holds volumes; of images, None."""
    postprocess: Method | None = None
    """How objects are found; None where none are asked for."""
    encoder_sha256: str | None = None
    """Identity of the pretrained weights that training starts from."""
    inherited: tuple[int | None, ...] | None = Field(None, exclude_if=operator.not_)
    """Of each channel of a network that goes on from a release, which one of the release it starts as; None for one that starts anew."""
    folds: Folds | None = Field(None, exclude_if=operator.not_)
    """Where the model is an ensemble: recipe and execution are then those of each member. None: it is one network."""
    recipe: Recipe | None = None
    execution: Execution | None = None
    reasons: dict[str, str]
    """Why each thing is as it is, in words."""
    data_hash: str
    settings: dict[str, Any] | None = Field(None, exclude_if=operator.not_)
    """What params.yaml said of the candidate (`Params.explicit_settings`). None: of a plan that does not tell."""

    @property
    def of(self) -> Family:
        """The family."""
        return get_family(self.family)

    @property
    def shrink(self) -> int:
        """Pixels of an image, along each axis, that become one for the network."""
        return shrink_factor(self.of.config.model_validate(self.options))

    @property
    def stride(self) -> int:
        """Height and width of what the network is given are multiples of this."""
        return self.of.stride * self.shrink

    @property
    def outputs(self) -> Outputs:
        """The channels of the network."""
        return Outputs(self.classes, self.recipe is not None and self.recipe.distance)

    @property
    def exact(self) -> dict[str, Any]:
        """What is computed and how, as JSON, without what was merely measured on the way or said about it."""
        measured = {"timings", "ms_per_step", "step_ms", "ms_per_validation", "peak_memory_mib"}
        return self.model_dump(mode="json", exclude={"reasons": True, "settings": True, "execution": measured})

    @property
    def sha256(self) -> str:
        """Identity of the plan: that of `exact`."""
        return sha256_bytes(json.dumps(self.exact).encode())

    def write(self, path: Path) -> None:
        """Write the plan, atomically, in a form that diffs well."""
        write_text(path, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Read and check a plan. Raises MissingError where there is none."""
        if not path.exists():
            raise MissingError("no plan here", where=path, fix=f"segpipe plan {path.stem}")
        return read_model(path, cls)


def changed_since(plan: Plan, settings: Mapping[str, Any]) -> list[str]:
    """List what differs in params.yaml since a candidate was planned, one line per key. settings: `Params.explicit_settings` of now."""
    before = settings if plan.settings is None else plan.settings
    return [
        f"{key} was {was} when it was planned and is {now} now"
        for key in dict.fromkeys([*settings, *before])
        if (was := before.get(key, _NOT_SET)) != (now := settings.get(key, _NOT_SET))
    ]


def check_settings(plan: Plan, settings: Mapping[str, Any]) -> None:
    """Raise ConfigError where params.yaml says otherwise than when the candidate was planned: it would not be heard."""
    if changed := changed_since(plan, settings):
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise ConfigError(
            f"{changed[0]}{more}",
            where=f"plans/{plan.candidate}.json",
            fix=f"segpipe plan {plan.candidate}, or `segpipe run`, which plans first; or put it back in params.yaml",
        )


def explain(plan: Plan) -> str:
    """The plan in words, and the table of what was measured."""
    width = max(len(name) for name in plan.reasons)
    lines = [f"{name:<{width}}  {words}" for name, words in plan.reasons.items()]
    if plan.execution is not None:
        lines += ["", f"{'setting':<32}{'ms a step':>10}  {'loss vs fp32':>12}  verdict"]
        for t in plan.execution.timings:
            ms = "-" if t.ms_per_step is None else f"{t.ms_per_step:.0f}"
            difference = "-" if t.loss_difference is None else f"{t.loss_difference:+.2%}"
            lines.append(f"{t.setting!s:<32}{ms:>10}  {difference:>12}  {t.verdict}")
    return "\n".join(lines)

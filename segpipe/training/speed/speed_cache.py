"""Speeds that were measured before on this machine, in JSON files that candidates, workspaces and searches share.

An entry belongs to everything that speed depends on: machine, versions of libraries, network, crops, batch and the settings that were
asked for. Only planning reads the cache, so a plan that exists, and the training that follows it, never depend on it. The variable
`SEGPIPE_SPEED_CACHE` names another folder; with the value ``off`` nothing is read or written.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from segpipe.errors import SegpipeError
from segpipe.files import sha256_bytes, user_cache, write_text
from segpipe.json_models import read_model
from segpipe.progress import say
from segpipe.training.machine import available_cores, this_machine
from segpipe.training.plan import StepSetting, Timing

if TYPE_CHECKING:
    from segpipe.config import TrainParams
    from segpipe.training.plan import RecipePlan

VARIABLE = "SEGPIPE_SPEED_CACHE"
_OFF = "off"
_MAX_BYTES = 1 << 20
_LIBRARIES = (
    "segpipe",
    "torch",
    "torchvision",
    "timm",
    "segmentation-models-pytorch",
    "lightning-fabric",
    "albumentations",
    "numpy",
)
"""Libraries on which the speed of a step depends."""

SpeedKey = dict[str, Any]
"""Everything that a speed depends on, as JSON (`speed_key`)."""
Comparison = Literal["none", "settings", "compilation"]
"""The settings that were compared before one was chosen: none, those that need no compilation, or all."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    key: SpeedKey


class KnownPrice(_Entry):
    """The speed of steps on few crops, which decides about resolution and batch."""

    ms_per_step: float


class KnownSpeed(_Entry):
    """The setting that was used for a network, and its speed."""

    setting: StepSetting
    workers: int
    timings: list[Timing]
    """The settings that were timed."""
    ms_per_step: float
    """Of the real loop."""
    ms_cheaper: list[float]
    """Milliseconds per step of each kind of cheaper first steps."""
    step_ms: dict[str, float]
    """The parts of `ms_per_step`."""
    peak_memory_mib: int
    """Of the process that measured it."""
    compile_s: float
    """Seconds for compiling; 0 if the network is not compiled."""


Entry = TypeVar("Entry", bound=_Entry)


def cache_folder() -> Path | None:
    """Return the folder of the cache: ``$XDG_CACHE_HOME/segpipe/speeds``, or as `SEGPIPE_SPEED_CACHE` says; None if it is off."""
    setting = os.environ.get(VARIABLE, "")
    if setting.lower() == _OFF:
        return None
    return Path(setting) if setting else user_cache("speeds")


def speed_key(plan: RecipePlan, settings: TrainParams, device: str, comparison: Comparison = "none") -> SpeedKey:
    """Return what the speed of a plan's steps depends on. Loss weights, rates, seeds and the number of steps are no part of it.

    Args:
        plan: the plan so far.
        settings: the candidate's `train` settings.
        device: "cpu" or "cuda".
        comparison: the settings from which one was chosen.
    """
    recipe = plan.recipe
    return {
        "comparison": comparison,
        "machine": this_machine(device).model_dump() | {"cores": available_cores()},
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "network": {
            "family": plan.family,
            "options": {name: value for name, value in plan.options.items() if name != "encoder_weights"},
            "channels": [plan.normalisation.channels, plan.outputs.channels],
            "freeze_encoder": bool(settings.freeze_encoder),
        },
        "crops": {
            "edges": list(plan.crop_edges),
            "first": recipe.first and recipe.first.model_dump(mode="json", exclude={"steps"}),
            "dtype": plan.dtype,
            "augment": recipe.augment,
            "elastic": recipe.elastic,
            "volume": plan.volume and plan.volume.model_dump(mode="json"),
        },
        "step": {
            "batch": recipe.batch,
            "accumulate": recipe.accumulate,
            "processes": [settings.devices, settings.num_nodes],
            "optimizer": recipe.optimizer,
            "average": recipe.ema > 0,
            "loss": sorted(name for name, term in recipe.loss if term),
            "overlapping": recipe.overlapping,
            "distance": recipe.distance,
        },
        "requested": settings.model_dump(mode="json", include={"precision", "channels_last", "compile", "workers"}),
    }


def entry_path(key: SpeedKey, entry_type: type[_Entry]) -> Path | None:
    """Return the file of an entry; None if the cache is off."""
    folder, digest = cache_folder(), sha256_bytes(json.dumps(key, sort_keys=True).encode())
    return folder and folder / f"{entry_type.__name__.lower()}-{digest[:24]}.json"


def recall(key: SpeedKey, entry_type: type[Entry]) -> Entry | None:
    """Read an entry.

    Args:
        key: what the speed depends on.
        entry_type: `KnownPrice` or `KnownSpeed`.

    Returns:
        The entry; None if there is none, if it cannot be used (which is reported), or if the cache is off.
    """
    path = entry_path(key, entry_type)
    try:
        if path is None or not path.is_file():
            return None
        entry = read_model(path, entry_type, kind="entry of the speed cache", max_bytes=_MAX_BYTES)
    except (SegpipeError, OSError) as error:
        reason = error.what if isinstance(error, SegpipeError) else error
        say(f"note: {path}: {reason}; speeds are measured again")
        return None
    if entry.key != json.loads(json.dumps(key)):
        say(f"note: {path} belongs to another machine or network: speeds are measured again")
        return None
    return entry


def remember(entry: _Entry) -> None:
    """Write an entry, in place of an earlier one. A folder that cannot be written to is reported, and planning goes on."""
    path = entry_path(entry.key, type(entry))
    if path is None:
        return
    try:
        write_text(path, entry.model_dump_json(indent=2) + "\n")
    except OSError as error:
        say(f"note: speeds are not kept for later plans: {error}")


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return ""

"""Checkpoints from which a stopped training continues bit for bit: safetensors files, written atomically, with a checksum.

Two are kept, so that a damaged file (after a crash of the machine or a disk error) costs only the steps since the one before it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from segpipe.errors import DataError
from segpipe.files import atomic_path
from segpipe.progress import say
from segpipe.training.plan import Plan
from segpipe.training.step import Stepper
from segpipe.words import listed

Weights = dict[str, torch.Tensor]
KEPT_CHECKPOINTS = 2
_FILES = "*.safetensors"


@dataclass
class TrainingState:
    """The state of a training, apart from its tensors. Random draws follow from (seed, step), so their state is not stored."""

    step: int = 0
    """Steps taken."""
    best_score: float | None = None
    best_step: int = 0
    accumulate: int = 1
    """Parts in which a batch is computed; more than planned if memory ran out."""
    ranks: int = 1
    """Processes that share each batch."""
    pending: list[float] = field(default_factory=list)
    """Losses since the last entry of the history."""
    train: list[dict[str, float]] = field(default_factory=list)
    """History: step, learning rate, mean loss since the entry before."""
    val: list[dict[str, float]] = field(default_factory=list)
    """History: step and scores on the validation split."""
    memory: list[dict[str, int]] = field(default_factory=list)
    """History: from which step on a batch was computed in how many parts, because memory ran out."""


def save_checkpoint(folder: Path, plan: Plan, stepper: Stepper, best: Weights, state: TrainingState) -> None:
    """Write a checkpoint to `folder`/STEP.safetensors and remove all but the newest two.

    Args:
        folder: the folder of the training's checkpoints.
        plan: the plan of the training.
        stepper: the network in training, its running average and its optimiser.
        best: the weights with the best score so far.
        state: the rest of the state.
    """
    from safetensors.torch import save_file

    parts = {"network": stepper.network.state_dict(), "best": best}
    if stepper.average is not stepper.network:
        parts["average"] = stepper.average.state_dict()
    parts["optimizer"], optimizer = _optimizer_state(stepper)
    tensors = {f"{part}:{name}": to_host(value) for part, values in parts.items() for name, value in values.items()}
    about = {"plan": plan.exact, "state": asdict(state), "optimizer": optimizer}
    if stepper.scaler is not None:
        about["scaler"] = stepper.scaler.state_dict()
    text = json.dumps(about)
    with atomic_path(folder / f"{state.step:09d}.safetensors") as path:
        save_file(tensors, path, {"segpipe": text, "sha256": _digest(text, tensors)})
    for old_path in _complete_files(folder)[KEPT_CHECKPOINTS:]:
        old_path.unlink()


def load_checkpoint(folder: Path, plan: Plan, stepper: Stepper) -> tuple[Weights, TrainingState] | None:
    """Restore a stepper from the newest valid checkpoint of the plan.

    A file that cannot be read is removed with a message, and the one before it is used. Checkpoints of another plan are removed too,
    because a changed plan gives other weights; the message names the differences.

    Args:
        folder: the folder of the training's checkpoints.
        plan: the plan of the training.
        stepper: a new stepper of that plan; it is changed in place.

    Returns:
        The best weights so far and the state; None if there is no checkpoint.
    """
    for partial in folder.glob(f".{_FILES}"):  # left by a kill during a write
        partial.unlink(missing_ok=True)
    for path in _complete_files(folder):
        try:
            about, tensors = _read(path)
        except DataError as error:
            say(
                f"note: {path} is removed: {error.what}; training continues from the checkpoint before it, if there is one"
            )
            path.unlink(missing_ok=True)
            continue
        differences = json_differences(about["plan"], plan.exact)
        if not differences:
            return _restore(stepper, about, tensors), TrainingState(**about["state"])
        say(
            f"note: {plan.candidate} has a new plan since step {about['state']['step']} of its last training: "
            f"training starts from the beginning. Changed: {listed(differences)}"
        )
        for old_path in _complete_files(folder):
            old_path.unlink(missing_ok=True)
        break
    return None


def json_differences(before: Any, now: Any, where: str = "") -> list[str]:
    """List the differences between two nested JSON structures, such as ``recipe.batch (8, now 4)``.

    Args:
        before: the first structure.
        now: the second structure.
        where: the key under which both stand, for nested calls.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        keys = before | now
        return [
            difference
            for key in keys
            for difference in json_differences(before.get(key), now.get(key), f"{where}.{key}".lstrip("."))
        ]
    if before == now:
        return []
    are_scalars = not isinstance(before, (dict, list)) and not isinstance(now, (dict, list))
    return [f"{where} ({_shortened(before)}, now {_shortened(now)})" if are_scalars else where]


def to_host(value: torch.Tensor) -> torch.Tensor:
    """Return a copy of a tensor as safetensors requires it: on the CPU, contiguous, not a view."""
    return value.detach().to("cpu", copy=True).contiguous()


def _shortened(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 20 else f"{text[:12]}..."


def _complete_files(folder: Path) -> list[Path]:
    """Return the checkpoints that were written completely, the newest first."""
    return sorted((path for path in folder.glob(_FILES) if not path.name.startswith(".")), reverse=True)


def _read(path: Path) -> tuple[dict[str, Any], Weights]:
    """Read a checkpoint: its metadata and its tensors. Raises DataError if it is damaged or of another version."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"it cannot be read: {error}", where=path) from error
    text = metadata.get("segpipe", "")
    if metadata.get("sha256") != _digest(text, tensors):
        raise DataError("its checksum does not match", where=path)
    about = json.loads(text)
    if about["state"].keys() != asdict(TrainingState()).keys():
        raise DataError("another version of segpipe wrote it", where=path)
    return about, tensors


def _digest(about: str, tensors: Weights) -> str:
    """Compute the SHA-256 of the metadata and of the names, types, shapes and bytes of all tensors."""
    digest = hashlib.sha256(about.encode())
    for key in sorted(tensors):
        value = tensors[key]
        digest.update(f"\0{key}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data if value.numel() else b"")
    return digest.hexdigest()


def _optimizer_state(stepper: Stepper) -> tuple[Weights, dict[str, Any]]:
    """Return the state of any optimiser of torch: the tensors of each parameter, and the state in plain numbers."""
    tensors: Weights = {}
    numbers: dict[str, Any] = {}
    for name, parameter in stepper.network.named_parameters():
        for kind, value in stepper.optimizer.state.get(parameter, {}).items():
            (tensors if isinstance(value, torch.Tensor) else numbers)[f"{name}:{kind}"] = value
    groups = [{k: v for k, v in group.items() if k != "params"} for group in stepper.optimizer.param_groups]
    on_host = [key for key, value in tensors.items() if value.device.type == "cpu"]
    return tensors, {"numbers": numbers, "groups": groups, "on_host": on_host}


def _restore(stepper: Stepper, about: dict[str, Any], tensors: Weights) -> Weights:
    """Load a checkpoint into a stepper. Returns the best weights."""
    parts: dict[str, Weights] = {"network": {}, "average": {}, "best": {}, "optimizer": {}}
    for key, value in tensors.items():
        part, _, name = key.partition(":")
        parts[part][name] = value
    stepper.network.load_state_dict(parts["network"])
    if stepper.average is not stepper.network:
        stepper.average.load_state_dict(parts["average"])
    optimizer = about["optimizer"]
    parameters, on_host = dict(stepper.network.named_parameters()), set(optimizer["on_host"])
    for key, value in (parts["optimizer"] | optimizer["numbers"]).items():
        name, _, kind = key.rpartition(":")
        parameter = parameters[name]
        if isinstance(value, torch.Tensor):
            if value.shape == parameter.shape:
                # In the parameter's own memory format, because the fused optimiser walks through all of them in parallel.
                value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            elif key not in on_host:
                value = value.to(parameter.device)
        stepper.optimizer.state.setdefault(parameter, {})[kind] = value
    if stepper.scaler is not None:
        stepper.scaler.load_state_dict(about["scaler"])
    for group, values in zip(stepper.optimizer.param_groups, optimizer["groups"], strict=True):
        group.update(values)
    return parts["best"]

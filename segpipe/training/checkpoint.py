"""Files from which a training that was stopped continues bit for bit: safetensors, written atomically, with a checksum.

Two are kept, so that one which a crash of the machine tore, or a disk spoilt, costs the steps since the one before it.
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

Weights = dict[str, torch.Tensor]
KEPT_CHECKPOINTS = 2
"""Checkpoints that stay."""
_FILES = "*.safetensors"
_SHOWN = 6


@dataclass
class TrainingState:
    """Where a training stands, beside its tensors. Random draws follow from (seed, step) and need no keeping."""

    step: int = 0
    """Steps done."""
    best_score: float | None = None
    best_step: int = 0
    accumulate: int = 1
    """Micro-batches a step; more than the plan says where memory ran short."""
    ranks: int = 1
    """Processes that share the work."""
    pending: list[float] = field(default_factory=list)
    """Losses since the last entry of the history."""
    train: list[dict[str, float]] = field(default_factory=list)
    """History: step, learning rate, mean loss since the entry before."""
    val: list[dict[str, float]] = field(default_factory=list)
    """History: step and scores on the validation split."""
    memory: list[dict[str, int]] = field(default_factory=list)
    """History: from which step on a batch was computed in how many micro-batches, because memory ran short."""


def save_checkpoint(folder: Path, plan: Plan, stepper: Stepper, best: Weights, state: TrainingState) -> None:
    """Write weights, running average, optimiser, best weights so far and state to `folder`/STEP.safetensors; keep two such files."""
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
    for old in _files(folder)[KEPT_CHECKPOINTS:]:
        old.unlink()


def load_checkpoint(folder: Path, plan: Plan, stepper: Stepper) -> tuple[Weights, TrainingState] | None:
    """Bring a stepper back to where the newest sound checkpoint of the plan left it: the best weights so far, and the state.

    None where there is none; with a line to the user where one can't be read (the one before it is taken) and where it was
    made under another plan (training starts anew, for a changed plan asks for other weights): the line names what differs.
    """
    for half in folder.glob(f".{_FILES}"):  # a kill while it was written
        half.unlink(missing_ok=True)
    for path in _files(folder):
        try:
            about, tensors = _read(path)
        except DataError as error:
            say(
                f"note: {path} is removed: {error.what}; training goes on from the checkpoint before it, if there is one"
            )
            path.unlink(missing_ok=True)
            continue
        differing = json_differences(about["plan"], plan.exact)
        if not differing:
            return _restore(stepper, about, tensors), TrainingState(**about["state"])
        more = f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
        say(
            f"note: {plan.candidate} was planned anew after step {about['state']['step']} of its last training: "
            f"training starts anew. Changed: {', '.join(differing[:_SHOWN])}{more}"
        )
        for old in _files(folder):
            old.unlink(missing_ok=True)
        break
    return None


def json_differences(before: Any, now: Any, where: str = "") -> list[str]:
    """Where two nested structures of JSON differ: ``recipe.batch (8, now 4)``."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = before | now
        return [
            d for key in keys for d in json_differences(before.get(key), now.get(key), f"{where}.{key}".lstrip("."))
        ]
    if before == now:
        return []
    plain_values = not isinstance(before, (dict, list)) and not isinstance(now, (dict, list))
    return [f"{where} ({_short(before)}, now {_short(now)})" if plain_values else where]


def to_host(value: torch.Tensor) -> torch.Tensor:
    """A tensor as safetensors wants it: on the CPU, contiguous, no view of another."""
    return value.detach().to("cpu", copy=True).contiguous()


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 20 else f"{text[:12]}..."


def _files(folder: Path) -> list[Path]:
    """The checkpoints that were written to their end, the newest first."""
    return sorted((path for path in folder.glob(_FILES) if not path.name.startswith(".")), reverse=True)


def _read(path: Path) -> tuple[dict[str, Any], Weights]:
    """What a file holds. Raises DataError where it is not what was written."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"it can't be read: {error}", where=path) from error
    text = metadata.get("segpipe", "")
    if metadata.get("sha256") != _digest(text, tensors):
        raise DataError("its checksum is another", where=path)
    about = json.loads(text)
    if about["state"].keys() != asdict(TrainingState()).keys():
        raise DataError("another version of segpipe wrote it", where=path)
    return about, tensors


def _digest(about: str, tensors: Weights) -> str:
    """SHA-256 over the state in words and names, types, shapes and bytes of all tensors."""
    digest = hashlib.sha256(about.encode())
    for key in sorted(tensors):
        value = tensors[key]
        digest.update(f"\0{key}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data if value.numel() else b"")
    return digest.hexdigest()


def _optimizer_state(stepper: Stepper) -> tuple[Weights, dict[str, Any]]:
    """Any optimiser of torch: the tensors of each parameter, and what it keeps in plain numbers."""
    tensors: Weights = {}
    numbers: dict[str, Any] = {}
    for name, parameter in stepper.network.named_parameters():
        for kind, value in stepper.optimizer.state.get(parameter, {}).items():
            (tensors if isinstance(value, torch.Tensor) else numbers)[f"{name}:{kind}"] = value
    groups = [{k: v for k, v in group.items() if k != "params"} for group in stepper.optimizer.param_groups]
    on_host = [key for key, value in tensors.items() if value.device.type == "cpu"]
    return tensors, {"numbers": numbers, "groups": groups, "on_host": on_host}


def _restore(stepper: Stepper, about: dict[str, Any], tensors: Weights) -> Weights:
    parts: dict[str, Weights] = {"network": {}, "average": {}, "best": {}, "optimizer": {}}
    for key, value in tensors.items():
        part, _, name = key.partition(":")
        parts[part][name] = value
    stepper.network.load_state_dict(parts["network"])
    if stepper.average is not stepper.network:
        stepper.average.load_state_dict(parts["average"])
    kept = about["optimizer"]
    parameters, on_host = dict(stepper.network.named_parameters()), set(kept["on_host"])
    for key, value in (parts["optimizer"] | kept["numbers"]).items():
        name, _, kind = key.rpartition(":")
        parameter = parameters[name]
        if isinstance(value, torch.Tensor):
            if value.shape == parameter.shape:
                # In the parameter's own memory format: the fused optimiser walks all of them in step.
                value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            elif key not in on_host:
                value = value.to(parameter.device)
        stepper.optimizer.state.setdefault(parameter, {})[kind] = value
    if stepper.scaler is not None:
        stepper.scaler.load_state_dict(about["scaler"])
    for group, values in zip(stepper.optimizer.param_groups, kept["groups"], strict=True):
        group.update(values)
    return parts["best"]

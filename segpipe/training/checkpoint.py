"""One file from which a training that was stopped continues bit for bit: safetensors, replaced atomically."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from segpipe.files import atomic_path
from segpipe.progress import say
from segpipe.training.stepper import Stepper

Weights = dict[str, torch.Tensor]
FILE = "last.safetensors"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass
class State:
    """Where a training stands, beside its tensors. Random draws follow from (seed, step) and need no keeping."""

    step: int = 0
    """Steps done."""
    best_score: float | None = None
    best_step: int = 0
    pending: list[float] = field(default_factory=list)
    """Losses since the last entry of the history."""
    train: list[dict[str, float]] = field(default_factory=list)
    """History: step, learning rate, mean loss since the entry before."""
    val: list[dict[str, float]] = field(default_factory=list)
    """History: step and scores on the validation split."""


def save_checkpoint(folder: Path, plan_sha256: str, stepper: Stepper, best: Weights, state: State) -> None:
    """Write weights, running average, optimiser, best weights so far and state to `folder`/last.safetensors."""
    from safetensors.torch import save_file

    parts = {"network": stepper.network.state_dict(), "best": best, "optimizer": _moments(stepper)}
    if stepper.average is not stepper.network:
        parts["average"] = stepper.average.state_dict()
    tensors = {f"{part}:{name}": plain(value) for part, values in parts.items() for name, value in values.items()}
    about = json.dumps({"plan": plan_sha256, "state": asdict(state)})
    with atomic_path(folder / FILE) as path:
        save_file(tensors, path, {"segpipe": about})


def load_checkpoint(folder: Path, plan_sha256: str, stepper: Stepper) -> tuple[Weights, State] | None:
    """Bring a stepper back to where a checkpoint of the same plan left it: the best weights so far, and the state.

    None, with a word to the user, where there is no checkpoint, or it is of another plan or data, or it can't be read.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            about: dict[str, Any] = json.loads((file.metadata() or {}).get("segpipe", "{}"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a mapping
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        say(f"note: {path} can't be read ({error}); training starts anew")
        return None
    if about.get("plan") != plan_sha256:
        say(f"note: {path} belongs to another plan or other data; training starts anew")
        return None
    parts: dict[str, Weights] = {"network": {}, "average": {}, "best": {}, "optimizer": {}}
    for key, value in tensors.items():
        part, _, name = key.partition(":")
        parts[part][name] = value
    stepper.network.load_state_dict(parts["network"])
    if stepper.average is not stepper.network:
        stepper.average.load_state_dict(parts["average"])
    for name, parameter in stepper.network.named_parameters():
        moments = {kind: parts["optimizer"].get(f"{name}:{kind}") for kind in _MOMENTS}
        if moments["step"] is not None:
            # In the parameter's own memory format: the fused optimiser walks all of them in step.
            stepper.adamw.state[parameter] = {
                kind: value.to(parameter.device) if kind == "step" else torch.empty_like(parameter).copy_(value)
                for kind, value in moments.items()
                if value is not None
            }
    return parts["best"], State(**about["state"])


def plain(value: torch.Tensor) -> torch.Tensor:
    """A tensor as safetensors wants it: on the CPU, contiguous, no view of another."""
    return value.detach().to("cpu", copy=True).contiguous()


def _moments(stepper: Stepper) -> Weights:
    states = stepper.adamw.state
    return {
        f"{name}:{kind}": states[parameter][kind]
        for name, parameter in stepper.network.named_parameters()
        if parameter in states
        for kind in _MOMENTS
    }

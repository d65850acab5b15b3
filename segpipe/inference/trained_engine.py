"""The engine of a trained model: its network is built again and gets its weights (a classical model is its own engine)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segpipe.errors import ConfigError, MissingError
from segpipe.inference.detector import DetectorEngine
from segpipe.inference.engines.engine import Engine, TorchEngine
from segpipe.inference.spec import WEIGHTS_FILE, SegmenterSpec
from segpipe.models.registry import build_network, get_family

if TYPE_CHECKING:
    import torch


def trained_engine(spec: SegmenterSpec, folder: Path, device: str = "cpu") -> Engine:
    """Load the engine of a trained model: torch in float32, or a classical model.

    Args:
        spec: The model's segmenter.json.
        folder: The folder with weights.safetensors.
        device: torch device to run on.

    Raises:
        MissingError: The folder has no weights.
        ConfigError: The weights do not fit segmenter.json.
    """
    weights = folder / WEIGHTS_FILE
    if not weights.exists():
        raise MissingError("no weights in this folder", where=folder, fix=f"segpipe train {spec.candidate}")
    family = get_family(spec.family)
    if family.kind == "classical":
        return family.classical.load(weights)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return network_engine(spec, load_file(weights), device)
    except (SafetensorError, RuntimeError) as error:
        raise ConfigError(
            f"the weights do not fit segmenter.json: {next(iter(str(error).splitlines()))}",
            where=weights,
            fix=f"train it again: segpipe train {spec.candidate}",
        ) from error


def network_engine(spec: SegmenterSpec, weights: Mapping[str, torch.Tensor], device: str = "cpu") -> TorchEngine:
    """Return the engine of a network: torch in float32.

    Args:
        spec: The model's segmenter.json.
        weights: The state of its network, or of its ensemble.
        device: torch device to run on.

    Raises:
        RuntimeError: The weights do not fit segmenter.json.
    """
    network = _build_network(spec)
    network.load_state_dict(weights)
    return torch_engine(spec.task, network.to(device).eval(), device)


def _build_network(spec: SegmenterSpec) -> torch.nn.Module:
    """Build the network of a model, or its ensemble, with random weights."""
    settings = get_family(spec.family).config
    random_weights = {"encoder_weights": "none"} if "encoder_weights" in settings.model_fields else {}
    config = settings.model_validate(spec.options | random_weights)
    channels = spec.normalisation.channels, spec.outputs.channels
    members = [build_network(spec.family, config, *channels, seed=0) for _ in range(spec.members)]
    if len(members) == 1:
        return members[0]
    from segpipe.inference.engines.ensemble import Ensemble

    return Ensemble(members, exclusive=0 if spec.classes.overlapping else len(spec.classes))


def torch_engine(task: str, network: torch.nn.Module, *options: Any) -> TorchEngine:
    """Return the engine that runs a network on torch.

    Args:
        task: "semantic", or "instance" for a detector.
        network: The network.
        *options: Further arguments of `TorchEngine`: device, autocast, channels_last.
    """
    return (DetectorEngine if task == "instance" else TorchEngine)(network, *options)

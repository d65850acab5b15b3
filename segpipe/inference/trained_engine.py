"""The engine of a model as training left it: its network, built again, with its weights (or its classical family itself)."""

from __future__ import annotations

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
    """What computes the model of a folder (segmenter.json and weights.safetensors): torch in float32, or a classical family.

    Raises MissingError where the folder holds no weights, ConfigError where they are not those of segmenter.json.
    """
    weights = folder / WEIGHTS_FILE
    if not weights.exists():
        raise MissingError("no weights here", where=folder, fix=f"segpipe train {spec.candidate}")
    if get_family(spec.family).kind == "classical":
        return get_family(spec.family).classical.load(weights)  # type: ignore[no-any-return]
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    network = _build(spec)
    try:
        network.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError) as error:
        raise ConfigError(
            f"the weights do not fit segmenter.json: {next(iter(str(error).splitlines()))}",
            where=weights,
            fix=f"train it anew: segpipe train {spec.candidate}",
        ) from error
    return torch_engine(spec.task, network.to(device).eval(), device)


def _build(spec: SegmenterSpec) -> torch.nn.Module:
    """The network of a spec, or its members as one, with any weights."""
    settings = get_family(spec.family).config
    scratch = {"encoder_weights": "none"} if "encoder_weights" in settings.model_fields else {}
    config = settings.model_validate(spec.options | scratch)
    shape = spec.normalisation.channels, spec.outputs.channels
    members = [build_network(spec.family, config, *shape, seed=0) for _ in range(spec.members)]
    if len(members) == 1:
        return members[0]
    from segpipe.inference.engines.ensemble import Ensemble

    return Ensemble(members, exclusive=0 if spec.classes.overlapping else len(spec.classes))


def torch_engine(task: str, network: torch.nn.Module, *how: Any) -> TorchEngine:
    """A network of a task on torch; `how` as `TorchEngine` takes it."""
    return (DetectorEngine if task == "instance" else TorchEngine)(network, *how)

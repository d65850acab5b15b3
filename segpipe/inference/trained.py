"""A model as training left it (models/C: segmenter.json and weights.safetensors), ready to segment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from segpipe.errors import ConfigError, MissingError
from segpipe.inference.detector import DetectorEngine
from segpipe.inference.engines import Engine, TorchEngine
from segpipe.inference.segmenter import WEIGHTS_FILE, Segmenter, SegmenterSpec
from segpipe.models.registry import build_network, family

if TYPE_CHECKING:
    import torch

__all__ = ["WEIGHTS_FILE", "load_trained", "torch_engine"]


def load_trained(folder: Path, device: str = "cpu") -> Segmenter:
    """The segmenter of a trained candidate, computed by torch in float32 (or by its classical family itself).

    Raises MissingError where the folder holds no model, ConfigError where the weights are not those of segmenter.json.
    """
    spec = SegmenterSpec.read(folder)
    weights = folder / WEIGHTS_FILE
    if not weights.exists():
        raise MissingError("no weights here", where=folder, fix=f"segpipe train {spec.candidate}")
    return Segmenter(spec, _engine(spec, weights, device))


def _engine(spec: SegmenterSpec, weights: Path, device: str) -> Engine:
    if family(spec.family).kind == "classical":
        return family(spec.family).classical.load(weights)  # type: ignore[no-any-return]
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    settings = family(spec.family).config
    scratch = {"encoder_weights": "none"} if "encoder_weights" in settings.model_fields else {}
    config = settings.model_validate(spec.options | scratch)
    network = build_network(spec.family, config, spec.normalisation.channels, len(spec.classes), seed=0)
    try:
        network.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError) as error:
        raise ConfigError(
            f"the weights do not fit segmenter.json: {next(iter(str(error).splitlines()))}", where=weights,
            fix=f"train it anew: segpipe train {spec.candidate}",
        ) from error  # fmt: skip
    return torch_engine(spec.task, network.to(device).eval(), device)


def torch_engine(task: str, network: torch.nn.Module, *how: Any) -> TorchEngine:
    """A network of a task on torch; `how` as `TorchEngine` takes it."""
    return (DetectorEngine if task == "instance" else TorchEngine)(network, *how)

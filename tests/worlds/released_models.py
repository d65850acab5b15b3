"""A network that continues another one as a release, whose classes are in another order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from segpipe.config import Candidate
from segpipe.files import write_json
from segpipe.models.registry import build_network, family_config
from segpipe.models.weights.released_weights import release_model_folder

INHERITED = (2, None, 0, 1)
"""For each of four classes, its class id in the release, which has three; the second class is new."""


def warm_started_network(
    network: torch.nn.Module, name: str, options: dict[str, Any], channels: int
) -> torch.nn.Module:
    """Store a network of three classes as a release in the working directory, and build one of four classes that continues it."""
    folder = release_model_folder(Path(), "v0.1.0")
    folder.mkdir(parents=True)
    save_file(network.state_dict(), folder / "weights.safetensors")
    write_json(folder / "segmenter.json", {"family": name})
    config = family_config(Candidate(family=name, **(options | {"encoder_weights": "segmenter@v0.1.0"})))
    return build_network(name, config, channels, len(INHERITED), 7, INHERITED).eval()


def inherited_channels(logits: torch.Tensor) -> torch.Tensor:
    """Select the channels of the release's classes, in its order: (N, 4, ...) -> (N, 3, ...)."""
    return logits[:, [INHERITED.index(class_id) for class_id in range(3)]]

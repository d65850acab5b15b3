"""A network that goes on from another one as from a release, in whose class table classes stood in other places."""

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
"""Of four classes: what the places of three of them were; one is new."""


def warm_started_network(
    network: torch.nn.Module, name: str, options: dict[str, Any], channels: int
) -> torch.nn.Module:
    """A network of another seed and four classes that goes on from one of three, in the working folder."""
    folder = release_model_folder(Path(), "v0.1.0")
    folder.mkdir(parents=True)
    save_file(network.state_dict(), folder / "weights.safetensors")
    write_json(folder / "segmenter.json", {"family": name})
    config = family_config(Candidate(family=name, **(options | {"encoder_weights": "segmenter@v0.1.0"})))
    return build_network(name, config, channels, len(INHERITED), 7, INHERITED).eval()


def inherited_channels(logits: torch.Tensor) -> torch.Tensor:
    """Logits (N, 4, ...) of the classes that were there, in the places that they had: (N, 3, ...)."""
    return logits[:, [INHERITED.index(place) for place in range(3)]]

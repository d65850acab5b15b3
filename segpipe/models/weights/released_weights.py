"""First weights out of a release: ``encoder_weights: NAME@VERSION`` goes on from a registered model, head included.

`plan` and `train` bring the model of the release to `.segpipe/releases/VERSION/model` (weights.safetensors and segmenter.json)
before a network is built; here it is found and loaded. `segpipe.training.planning.warm_start` chooses what else is taken over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segpipe.errors import ConfigError, MissingError
from segpipe.files import read_json
from segpipe.models.weights.encoder_weights import Weights, load_matching, read_weights_file
from segpipe.progress import say

if TYPE_CHECKING:
    import torch

_SOURCE = re.compile(r"(?P<name>[A-Za-z][\w-]*)@(?P<version>v\d+\.\d+\.\d+)")
_SHOWN = 3


def parse_release(source: str) -> tuple[str, str] | None:
    """ "segmenter@v0.2.0" -> ("segmenter", "v0.2.0"); None for every other kind of source."""
    match = _SOURCE.fullmatch(source)
    return (match["name"], match["version"]) if match else None


def release_model_folder(root: Path, version: str) -> Path:
    """Where the trained model of a release lies in a workspace, once it was fetched."""
    return root / ".segpipe" / "releases" / version / "model"


def load_released(
    network: torch.nn.Module,
    source: str,
    channels: Sequence[int | None] | None = None,
    wider: Callable[[], torch.nn.Module] | None = None,
) -> None:
    """Load all weights of a release that fit the network; says which do not.

    channels: which channel of the release each of the network's goes on from, None for none; by default the same one, where they
    are equally many. wider: the same network with one channel more, which shows what belongs to a channel.
    """
    folder = fetched_release_folder(source)
    about = read_json(folder / "segmenter.json")
    if about.get("members", 1) > 1:
        raise ConfigError(
            f"{source} is several networks (train.folds), which have learned from the images of val: no score on val would be fair",
            where="encoder_weights",
            fix="name a release of one network, or set it to auto",
        )
    state = read_weights_file(folder / "weights.safetensors", whole=True)
    if channels is not None and wider is not None:
        state = state | _by_channel(network.state_dict(), wider().state_dict(), state, channels)
    try:
        fresh = load_matching(network, state)
    except ConfigError as error:
        raise ConfigError(
            f"the weights of {source} do not fit: {error.what}",
            where="encoder_weights",
            fix=f"use the family ({about.get('family')}), the encoder and the settings of that release",
        ) from error
    if fresh:
        more = ", ..." if len(fresh) > _SHOWN else ""
        say(f"note: {len(fresh)} tensors are not taken from {source} and start anew: {', '.join(fresh[:_SHOWN])}{more}")


def _by_channel(own: Weights, wider: Weights, stored: Weights, channels: Sequence[int | None]) -> Weights:
    """The tensors of a network that have a part for each channel of its answer, each part that of the release's channel, or as it is.

    An axis belongs to the channels where one channel more makes it longer; by how much is the length of a part (of the boxes of a
    detector, four).
    """
    import torch

    kept = [(new, old) for new, old in enumerate(channels) if old is not None]
    found: Weights = {}
    for name, tensor in own.items():
        there, more = stored.get(name), wider[name].shape
        if there is None or there.ndim != tensor.ndim or more == tensor.shape:
            continue
        parts = [m - n for m, n in zip(more, tensor.shape, strict=True)]
        if any(not part and a != b for part, a, b in zip(parts, tensor.shape, there.shape, strict=True)):
            continue  # another network, which is said where it is loaded
        places, sources = (
            [
                torch.tensor([part * pair[side] + i for pair in kept for i in range(part)]) if part else torch.arange(n)
                for part, n in zip(parts, tensor.shape, strict=True)
            ]
            for side in (0, 1)
        )
        found[name] = tensor.clone()
        if kept:
            found[name][torch.meshgrid(places, indexing="ij")] = there[torch.meshgrid(sources, indexing="ij")]
    return found


def fetched_release_folder(source: str) -> Path:
    """The folder of the trained model that NAME@VERSION means, in the workspace that is the working folder. MissingError where it
    was not fetched."""
    found = parse_release(source)
    assert found is not None, "asked for by the form of the source"
    folder = release_model_folder(Path(), found[1])
    if not (folder / "weights.safetensors").exists():
        raise MissingError(
            f"the model of {source} is not here",
            where=folder,
            fix="segpipe plan CANDIDATE fetches it, in the workspace",
        )
    return folder

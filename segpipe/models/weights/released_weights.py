"""Initial weights from a release: ``encoder_weights: NAME@VERSION`` continues a registered model, with its head.

`plan` and `train` copy the model of the release to `.segpipe/releases/VERSION/model` (weights.safetensors and segmenter.json) before a
network is built. This module finds and loads it. `segpipe.training.planning.warm_start` decides what else is taken from the release.
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
from segpipe.words import listed
from segpipe.workspace.paths import Paths

if TYPE_CHECKING:
    import torch

_SOURCE = re.compile(r"(?P<name>[A-Za-z][\w-]*)@(?P<version>v\d+\.\d+\.\d+)")


def parse_release(source: str) -> tuple[str, str] | None:
    """Split the name of a release: "segmenter@v0.2.0" -> ("segmenter", "v0.2.0").

    Args:
        source: The setting `encoder_weights`.

    Returns:
        Name and version, or None if the weights come from elsewhere.
    """
    match = _SOURCE.fullmatch(source)
    return (match["name"], match["version"]) if match else None


def release_model_folder(root: Path, version: str) -> Path:
    """Return the folder in a workspace into which the trained model of a release is copied.

    Args:
        root: The workspace.
        version: Version of the release, for example "v0.2.0".
    """
    return Paths(root).release(version) / "model"


def load_released(
    network: torch.nn.Module,
    source: str,
    channels: Sequence[int | None] | None = None,
    build_wider: Callable[[], torch.nn.Module] | None = None,
) -> None:
    """Load all weights of a release that fit the network, and report those that do not.

    Args:
        network: The network, changed in place.
        source: NAME@VERSION of a release, whose model has been copied into the working directory's workspace.
        channels: For each output channel of the network, the channel of the released network that it continues, or None for a new one.
            By default, channel k continues channel k if both networks have equally many.
        build_wider: Builds the same network with one more output channel; comparing the two shows which tensors depend on the output
            channels. Needed if `channels` is given.

    Raises:
        ConfigError: The release is an ensemble, or its weights do not fit.
        MissingError: The model of the release has not been copied.
    """
    folder = fetched_release_folder(source)
    spec = read_json(folder / "segmenter.json")
    if spec.get("members", 1) > 1:
        raise ConfigError(
            f"{source} is an ensemble of several networks (train.folds) that were trained on images of val, so that scores on val would be "
            "too good",
            where="encoder_weights",
            fix="name a release of one network, or set it to auto",
        )
    state = read_weights_file(folder / "weights.safetensors", whole=True)
    if channels is not None and build_wider is not None:
        state = state | _assign_channels(network.state_dict(), build_wider().state_dict(), state, channels)
    try:
        not_loaded = load_matching(network, state)
    except ConfigError as error:
        raise ConfigError(
            f"the weights of {source} do not fit: {error.what}",
            where="encoder_weights",
            fix=f"use the family ({spec.get('family')}), the encoder and the settings of that release",
        ) from error
    if not_loaded:
        say(
            f"note: {len(not_loaded)} tensors are not taken from {source} and start from random values: "
            f"{listed(not_loaded, at_most=3)}"
        )


def _assign_channels(current: Weights, wider: Weights, released: Weights, channels: Sequence[int | None]) -> Weights:
    """Fill the tensors that depend on the output channels: each channel gets the values of the released channel that it continues.

    An axis of a tensor depends on the output channels if it is longer in a network with one more channel. The difference is the number
    of entries per channel (for example 4 for the boxes of a detector).

    Args:
        current: Weights of the network.
        wider: Weights of the same network with one more output channel.
        released: Weights of the release.
        channels: For each output channel, the released channel that it continues, or None.

    Returns:
        The tensors that depend on the output channels; new channels keep their current values.
    """
    import torch

    continued = [(new, old) for new, old in enumerate(channels) if old is not None]
    assigned: Weights = {}
    for name, tensor in current.items():
        source, wider_shape = released.get(name), wider[name].shape
        if source is None or source.ndim != tensor.ndim or wider_shape == tensor.shape:
            continue
        per_channel = [m - n for m, n in zip(wider_shape, tensor.shape, strict=True)]
        if any(not count and a != b for count, a, b in zip(per_channel, tensor.shape, source.shape, strict=True)):
            continue  # another network: loading reports it
        targets, sources = (
            [
                torch.tensor([count * pair[side] + i for pair in continued for i in range(count)])
                if count
                else torch.arange(length)
                for count, length in zip(per_channel, tensor.shape, strict=True)
            ]
            for side in (0, 1)
        )
        assigned[name] = tensor.clone()
        if continued:
            released_values = source[torch.meshgrid(sources, indexing="ij")]
            assigned[name][torch.meshgrid(targets, indexing="ij")] = released_values
    return assigned


def fetched_release_folder(source: str) -> Path:
    """Return the folder with the trained model of a release, in the workspace that is the working directory.

    Args:
        source: NAME@VERSION.

    Raises:
        MissingError: The model has not been copied there.
    """
    release = parse_release(source)
    assert release is not None, "callers check that the source is a release"
    folder = release_model_folder(Path(), release[1])
    if not (folder / "weights.safetensors").exists():
        raise MissingError(
            f"the model of {source} is missing in this workspace",
            where=folder,
            fix="run `segpipe plan CANDIDATE` in the workspace, which copies it",
        )
    return folder

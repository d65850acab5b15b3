"""First weights out of a release: ``encoder_weights: NAME@VERSION`` goes on from a registered model, head included.

`plan` and `train` bring the model of the release to `.segpipe/releases/VERSION/model` (weights.safetensors and segmenter.json)
before a network is built; here it is found and loaded.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segpipe.errors import ConfigError, MissingError
from segpipe.files import read_json
from segpipe.models.weights import Preprocessing, file_state, load_matching
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


def load_released(network: torch.nn.Module, source: str) -> None:
    """Load all weights of a release that fit the network; says which do not (such as those of other classes)."""
    folder = _folder(source)
    about = read_json(folder / "segmenter.json")
    if about.get("members", 1) > 1:
        raise ConfigError(
            f"{source} is several networks (train.folds), which have learned from the images of val: no score on val would be fair",
            where="encoder_weights", fix="name a release of one network, or set it to auto",
        )  # fmt: skip
    state = file_state(folder / "weights.safetensors", whole=True)
    try:
        fresh = load_matching(network, state)
    except ConfigError as error:
        raise ConfigError(
            f"the weights of {source} do not fit: {error.what}", where="encoder_weights",
            fix=f"use the family ({about.get('family')}), the encoder and the settings of that release",
        ) from error  # fmt: skip
    if fresh:
        more = ", ..." if len(fresh) > _SHOWN else ""
        say(f"note: {len(fresh)} tensors are not taken from {source} and start anew: {', '.join(fresh[:_SHOWN])}{more}")


def released_preprocessing(source: str) -> Preprocessing:
    """The normalisation that a release was trained with."""
    stored: dict[str, Any] = read_json(_folder(source) / "segmenter.json")["normalisation"]
    return Preprocessing(**{key: tuple(stored[key]) for key in ("mean", "std", "low", "high")})


def _folder(source: str) -> Path:
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

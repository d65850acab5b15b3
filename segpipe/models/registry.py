"""Look up families by name, validate their settings and build networks whose initial weights are determined by a seed.

To add a family, write its settings and its builder in a separate module and add an entry to `segpipe.models.families`. The tests
that all families share (tests/models/test_contract.py) then cover it.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from segpipe.config import PARAMS_FILE, Candidate
from segpipe.errors import ConfigError
from segpipe.json_models import validation_error
from segpipe.models.families import FAMILIES
from segpipe.models.family import Family
from segpipe.models.semantic.encoder_decoders import shrink_factor
from segpipe.models.weights.encoder_weights import Preprocessing, preprocessing, state_sha256
from segpipe.models.weights.released_weights import load_released, parse_release

if TYPE_CHECKING:
    import torch

__all__ = [
    "FAMILIES",
    "Family",
    "build_network",
    "family_config",
    "get_family",
    "initial_weights_sha256",
    "pretrained_preprocessing",
]


def get_family(name: str) -> Family:
    """Return the family of this name.

    Args:
        name: A key of `FAMILIES`, as `family:` in params.yaml gives it.

    Raises:
        ConfigError: There is no such family; the error lists all families and suggests the closest name.
    """
    if name not in FAMILIES:
        similar = difflib.get_close_matches(name, FAMILIES, n=1)
        fix = f"did you mean `{similar[0]}`?" if similar else "`segpipe families` describes all families"
        raise ConfigError(
            "no such model family", where=PARAMS_FILE, found=name, expected=" or ".join(FAMILIES), fix=fix
        )
    return FAMILIES[name]


def family_config(candidate: Candidate) -> BaseModel:
    """Validate the family-specific settings of a candidate.

    Args:
        candidate: An entry of `candidates` in params.yaml.

    Returns:
        The settings as the pydantic model of the candidate's family (`Family.config`), with defaults filled in.

    Raises:
        ConfigError: There is no such family, or a setting is unknown or invalid.
    """
    config = get_family(candidate.family).config
    try:
        return config.model_validate(candidate.options)
    except ValidationError as error:
        raise validation_error(error, f"{PARAMS_FILE}: candidate of family {candidate.family}", config) from error


def build_network(
    name: str,
    config: BaseModel,
    in_channels: int,
    n_classes: int,
    seed: int,
    inherited: Sequence[int | None] | None = None,
) -> torch.nn.Module:
    """Build a network and initialise its weights.

    Random weights depend on `seed` alone, and torch's global random state is left unchanged.

    Args:
        name: The family.
        config: Settings of the family, as `family_config` returns them.
        in_channels: Number of channels of the input image or volume.
        n_classes: Number of output channels (one per class; one more if the network also predicts a distance).
        seed: Seed of the random weights.
        inherited: Used if the weights come from a release: for each output channel, the channel of the released network that it
            continues, or None for a new one. By default, channel k continues channel k if both networks have equally many.

    Returns:
        A torch module on the CPU that maps images (N, in_channels, H, W), float32, to logits (N, n_classes, H, W), or volumes with
        a depth axis before H. A detector returns detections instead (`segpipe.models.detection.mask_rcnn_network.MaskRcnn`).

    Raises:
        ConfigError: The settings do not fit each other, or the weights do not fit the network.
        MissingError: Pretrained weights are not available.
    """
    import torch

    from segpipe.models.semantic.reduced_resolution import reduce_resolution

    build, source = get_family(name).build, getattr(config, "encoder_weights", "none")
    from_release = parse_release(source) is not None
    build_config = config.model_copy(update={"encoder_weights": "none"}) if from_release else config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(build_config, in_channels, n_classes)
        if from_release:
            load_released(network, source, inherited, lambda: build(build_config, in_channels, n_classes + 1))
    return reduce_resolution(network, shrink_factor(config))


def pretrained_preprocessing(config: BaseModel) -> Preprocessing | None:
    """Return the preprocessing that a candidate's pretrained encoder was trained with.

    Args:
        config: Settings of a family, as `family_config` returns them.

    Returns:
        Mean and standard deviation per channel; None for random weights and for those of a release, which have a normalisation of
        their own.
    """
    encoder, source = getattr(config, "encoder", None), getattr(config, "encoder_weights", "none")
    return preprocessing(encoder, source) if encoder and not parse_release(source) else None


def initial_weights_sha256(network: torch.nn.Module, whole: bool = False) -> str:
    """Return the SHA-256 of the weights that training starts from.

    Args:
        network: The network as `build_network` returns it.
        whole: Hash all weights. By default only those of the encoder, `network.encoder`, if there is one.
    """
    encoder = None if whole else getattr(network, "encoder", None)
    return state_sha256((network if encoder is None else encoder).state_dict())

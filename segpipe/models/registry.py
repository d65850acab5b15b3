"""Families by name, candidates' settings as their types, and networks with first weights that follow from a seed.

To add a family: write its config and its builder in a module of its own and a line in `segpipe.models.families`; the base test
(tests/models/test_contract.py) then runs over it.
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
    "family",
    "family_config",
    "first_preprocessing",
    "first_weights_sha256",
]


def get_family(name: str) -> Family:
    """The family of this name, or an error that lists those there are."""
    if name not in FAMILIES:
        near = difflib.get_close_matches(name, FAMILIES, n=1)
        fix = f"did you mean `{near[0]}`?" if near else "`segpipe families` says what each one is"
        raise ConfigError(
            "no such model family", where=PARAMS_FILE, found=name, expected=" or ".join(FAMILIES), fix=fix
        )
    return FAMILIES[name]


def family_config(candidate: Candidate) -> BaseModel:
    """A candidate's own keys as its family's typed settings, defaults filled in."""
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
    """A network of a family, its random weights drawn from `seed` alone; the global random state is left as it was.

    inherited: of weights out of a release, which of its channels each of the `n_classes` goes on from, None for none.
    """
    import torch

    from segpipe.models.semantic.reduced_resolution import reduce_resolution

    build, source = get_family(name).build, getattr(config, "encoder_weights", "none")
    released = parse_release(source) is not None
    own = config.model_copy(update={"encoder_weights": "none"}) if released else config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(own, in_channels, n_classes)
        if released:
            load_released(network, source, inherited, lambda: build(own, in_channels, n_classes + 1))
    return reduce_resolution(network, shrink_factor(config))


def pretrained_preprocessing(config: BaseModel) -> Preprocessing | None:
    """What a candidate's pretrained encoder expects of an image; None where weights are random, or those of a release."""
    encoder, source = getattr(config, "encoder", None), getattr(config, "encoder_weights", "none")
    return preprocessing(encoder, source) if encoder and not parse_release(source) else None


def initial_weights_sha256(network: torch.nn.Module, whole: bool = False) -> str:
    """Identity of the weights that training starts from: those of the encoder, or of all where there is none, or `whole`."""
    encoder = None if whole else getattr(network, "encoder", None)
    return state_sha256((network if encoder is None else encoder).state_dict())

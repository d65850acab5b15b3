"""Families by name, candidates' settings as their types, and networks with first weights that follow from a seed.

To add a family: write its config and its builder in a module of its own and a line in `segpipe.models.families`; the base test
(tests/models/test_contract.py) then runs over it.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from segpipe.config import PARAMS_FILE, Candidate, config_error
from segpipe.errors import ConfigError
from segpipe.models.families import FAMILIES
from segpipe.models.family import Family

if TYPE_CHECKING:
    import torch

__all__ = ["FAMILIES", "Family", "build_network", "family", "family_config"]


def family(name: str) -> Family:
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
    config = family(candidate.family).config
    try:
        return config.model_validate(candidate.options)
    except ValidationError as error:
        raise config_error(error, f"{PARAMS_FILE}: candidate of family {candidate.family}", config) from error


def build_network(name: str, config: BaseModel, in_channels: int, n_classes: int, seed: int) -> torch.nn.Module:
    """A network of a family, its random weights drawn from `seed` alone; the global random state is left as it was."""
    import torch

    build = family(name).build
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(config, in_channels, n_classes)

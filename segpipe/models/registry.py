"""What can be a candidate: families by name, with their typed settings and how they are built.

A family names its classes by where they stand ("package.module:name"), so that listing families imports no library.
To add one: write its config and its builder, add a line to `FAMILIES`; the base test (tests/models) then runs over it.
"""

from __future__ import annotations

import difflib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ValidationError

from segpipe.config import PARAMS_FILE, Candidate, config_error
from segpipe.errors import ConfigError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Family:
    """One kind of model: its settings, its builder, and what the network demands of its input."""

    name: str
    kind: Literal["network", "classical"]
    summary: str
    paper: str
    config_at: str
    build_at: str | None = None
    stride: int = 32
    """Height and width of what the network sees are multiples of this."""
    least_batch: int = 1
    """A network that normalises one value an image over the batch can't be trained on a single image."""

    @property
    def config(self) -> type[BaseModel]:
        """The family's typed settings."""
        return pkgutil.resolve_name(self.config_at)  # type: ignore[no-any-return]

    @property
    def build(self) -> Callable[[BaseModel, int, int], torch.nn.Module] | None:
        """``build(config, in_channels, n_classes)``: a network with its weights loaded; None for a classical family."""
        return pkgutil.resolve_name(self.build_at) if self.build_at else None


FAMILIES: dict[str, Family] = {
    f.name: f
    for f in (
        Family(
            "unet",
            "network",
            "Encoder and decoder with skip connections: sharp borders, the first thing to try.",
            "Ronneberger, Fischer, Brox 2015, arXiv:1505.04597",
            "segpipe.models.semantic:UnetConfig",
            "segpipe.models.semantic:build_unet",
        ),
        Family(
            "deeplabv3plus",
            "network",
            "Dilated convolutions see far: objects of many sizes, scenes.",
            "Chen et al. 2018, arXiv:1802.02611",
            "segpipe.models.semantic:DeepLabConfig",
            "segpipe.models.semantic:build_deeplabv3plus",
            stride=16,
            least_batch=2,
        ),
        Family(
            "kmeans",
            "classical",
            "Clusters of colour, each given its most frequent class: the baseline that a network has to beat.",
            "Lloyd 1982, doi:10.1109/TIT.1982.1056489",
            "segpipe.models.classical:KMeansConfig",
            stride=1,
        ),
    )
}
"""Every family there is, by the name that `family:` in params.yaml takes."""


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
    assert build is not None, f"{name} is not a network"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(config, in_channels, n_classes)

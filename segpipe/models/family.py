"""What a family of models is. `segpipe.models.families` lists those there are; `segpipe.models.registry` finds and builds them."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch
    from pydantic import BaseModel


@dataclass(frozen=True)
class Family:
    """One kind of model: its settings, how it is made, and what it demands of its input.

    Classes are named by where they stand ("package.module:name"), so that listing families imports no library.
    """

    name: str
    kind: Literal["network", "detector", "classical"]
    """network: a class for each pixel; detector: objects, by its own objective; classical: fitted, without steps."""
    summary: str
    """What it is and when to choose it, in one line."""
    paper: str
    config_at: str
    """The typed settings, a pydantic model."""
    build_at: str
    """``build(config, in_channels, n_classes)``, a torch module; of a classical family, its class
    (`segpipe.models.classical.Classical`)."""
    dims: Literal[2, 3] | None = 2
    """Of what it looks at: images (2) or volumes (3); None takes either."""
    stride: int = 32
    """Height and width (and depth) of what the network sees are multiples of this."""
    freeze_encoder: float = 0.0
    """Share of the steps in which a pretrained encoder is held, where `train.freeze_encoder` is left open."""
    batch: int = 8
    """Crops a step, where `train.batch` is left open."""
    rate: float = 1.0
    """Of the optimiser's usual learning rate, where `train.learning_rate` is left open."""
    least_batch: int = 1
    """A network that normalises one value an image over the batch can't be trained on a single image."""

    def takes(self, dims: int, overlapping: bool = False) -> bool:
        """Whether it learns from images (2) or volumes (3), and from classes that overlap where they do."""
        return self.dims in (dims, None) and (self.kind == "network" or not overlapping)

    @property
    def task(self) -> Literal["semantic", "instance", "volume"]:
        """What it is for."""
        return "volume" if self.dims == 3 else "instance" if self.kind == "detector" else "semantic"

    @property
    def config(self) -> type[BaseModel]:
        """The family's typed settings."""
        return pkgutil.resolve_name(self.config_at)  # type: ignore[no-any-return]

    @property
    def build(self) -> Callable[[Any, int, int], torch.nn.Module]:
        """``build(config, in_channels, n_classes)``: a network with its first weights; not for a classical family."""
        assert self.kind != "classical", f"{self.name} is fitted, not built"
        return pkgutil.resolve_name(self.build_at)  # type: ignore[no-any-return]

    @property
    def classical(self) -> type[Any]:
        """The class of a classical family: fit, load, save and call."""
        assert self.kind == "classical", f"{self.name} is a network"
        return pkgutil.resolve_name(self.build_at)  # type: ignore[no-any-return]

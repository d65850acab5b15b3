"""`Family`, the description of one kind of model.

`segpipe.models.families` lists all families; `segpipe.models.registry` looks them up and builds their networks.
"""

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
    """One kind of model: its settings, how it is built or fitted, and what it requires of its input.

    Classes and builders are named by reference ("package.module:name") and imported on first use, so that listing the families
    imports no library.
    """

    name: str
    kind: Literal["network", "detector", "classical"]
    """network: predicts a class for each pixel; detector: predicts instances and has its own loss; classical: fitted, without
    training steps."""
    summary: str
    """One line for users: what the family is and when to choose it."""
    paper: str
    """The publication that introduced it."""
    config_at: str
    """Reference to the typed settings, a pydantic model."""
    build_at: str
    """Reference to ``build(config, in_channels, n_classes)``, which returns a torch module; for a classical family, reference to its
    class (`segpipe.models.classical.Classical`)."""
    dims: Literal[2, 3] | None = 2
    """Spatial dimensions of the input: 2 for images, 3 for volumes, None for both."""
    stride: int = 32
    """Height and width (and depth) of the network's input must be multiples of this."""
    freeze_encoder: float = 0.0
    """Share of the training steps, 0..1, for which a pretrained encoder is frozen, if `train.freeze_encoder` is not set."""
    batch: int = 8
    """Crops per step, if `train.batch` is not set."""
    learning_rate_factor: float = 1.0
    """Multiplies the optimiser's default learning rate, if `train.learning_rate` is not set."""
    min_batch: int = 1
    """Smallest batch that can be trained: 2 for a network that normalises a single value per image over the batch."""

    def supports(self, dims: int, overlapping: bool = False) -> bool:
        """Return whether the family can learn from such a dataset.

        Args:
            dims: 2 for images, 3 for volumes.
            overlapping: True if the classes of the dataset overlap; only networks can learn them.
        """
        return self.dims in (dims, None) and (self.kind == "network" or not overlapping)

    @property
    def task(self) -> Literal["semantic", "instance", "volume"]:
        """The task that the family is made for."""
        return "volume" if self.dims == 3 else "instance" if self.kind == "detector" else "semantic"

    @property
    def config(self) -> type[BaseModel]:
        """The class of the family's typed settings."""
        return pkgutil.resolve_name(self.config_at)

    @property
    def build(self) -> Callable[[Any, int, int], torch.nn.Module]:
        """The function ``build(config, in_channels, n_classes)``, which returns a network with its initial weights.

        A classical family has none.
        """
        assert self.kind != "classical", f"{self.name} is fitted, not built"
        return pkgutil.resolve_name(self.build_at)

    @property
    def classical(self) -> type[Any]:
        """The class of a classical family (`segpipe.models.classical.Classical`)."""
        assert self.kind == "classical", f"{self.name} is a network"
        return pkgutil.resolve_name(self.build_at)

"""Replacing the class of modules in a network by a subclass with a faster or exportable `forward`.

A module keeps its parameters, buffers, hooks, names and state dict: only its class changes. So weights that were saved before the swap
load after it, and the other way round. tests/ops/test_swap.py checks what the subclasses rely on in the installed versions of torch,
torchvision and segmentation-models-pytorch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch


def swap_class(module: torch.nn.Module, replacement: type[torch.nn.Module]) -> None:
    """Replace a module's class, in place.

    Args:
        module: the module.
        replacement: a subclass of its class that adds no state.

    Raises:
        TypeError: `replacement` is not a subclass of the module's class.
    """
    if not issubclass(replacement, type(module)):
        raise TypeError(f"{replacement.__qualname__} cannot replace {type(module).__qualname__}: it is not a subclass")
    module.__class__ = replacement


def swap_classes(
    network: torch.nn.Module, replacement_for: Callable[[torch.nn.Module], type[torch.nn.Module] | None]
) -> None:
    """Replace the classes of modules in a network, in place.

    Args:
        network: the network, which may be a single module.
        replacement_for: returns the replacement for the class of a module; None: the module is left unchanged.
    """
    for module in network.modules():
        replacement = replacement_for(module)
        if replacement is not None:
            swap_class(module, replacement)

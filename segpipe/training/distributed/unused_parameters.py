"""Parameters on which no output of a network depends, such as the classifier at the end of an encoder: they get no gradient.

DistributedDataParallel waits for the gradient of every parameter that it manages. It can search the graph of each step for those
that will arrive, but on a GPU this makes each step wait. Parameters that are known to be unused need not be searched for.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from segpipe.training.distributed.process_group import started_by_torchrun

if TYPE_CHECKING:
    from segpipe.training.plan import RecipePlan

_IGNORED = "_ddp_params_and_buffers_to_ignore"
"""The attribute of a module in which DistributedDataParallel looks for names to ignore."""


def ignore_unused_parameters(network: torch.nn.Module, plan: RecipePlan) -> None:
    """Make DistributedDataParallel ignore unused parameters, if they follow from the network alone.

    They do not for detectors, whose losses depend on what they find, and are not computed for a user's own network, which may not
    run without data. In a single process, nothing is done.

    Args:
        network: the network; an attribute is added to it.
        plan: its plan.
    """
    if started_by_torchrun() and plan.model_family.kind == "network" and plan.family != "custom":
        shape = (2, plan.normalisation.channels, *plan.crop_edges)
        setattr(network, _IGNORED, unused_parameters(network, shape))


def needs_search(network: torch.nn.Module) -> bool:
    """Return whether `ignore_unused_parameters` did not determine the unused parameters of a network."""
    return not hasattr(network, _IGNORED)


def unused_parameters(network: torch.nn.Module, shape: tuple[int, ...]) -> list[str]:
    """List the parameters that get no gradient. Nothing is computed: a copy runs on shapes alone.

    Args:
        network: the network.
        shape: shape of a batch, (N, C, ...).
    """
    twin = copy.deepcopy(network).to("meta").train()
    outputs = twin(torch.empty(shape, device="meta"))
    levels = outputs if isinstance(outputs, tuple) else (outputs,)
    total = torch.stack([level.sum() for level in levels]).sum()
    names, parameters = zip(*twin.named_parameters(), strict=True)
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    return [name for name, gradient in zip(names, gradients, strict=True) if gradient is None]

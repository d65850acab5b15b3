"""Parameters that nothing a network says depends on, such as the classifier's end of an encoder: they get no gradient.

DistributedDataParallel waits for the gradient of every parameter that it has been given. It can search the graph of each step for those
that will come, but on a GPU that makes each step wait; what is known beforehand need not be searched for.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from segpipe.training.distributed.process_group import started_by_torchrun

if TYPE_CHECKING:
    from segpipe.training.plan import Plan

_IGNORED = "_ddp_params_and_buffers_to_ignore"
"""The attribute of a module under which DistributedDataParallel looks for names to leave alone."""


def ignore_unused_parameters(network: torch.nn.Module, plan: Plan) -> None:
    """Let DistributedDataParallel leave alone what is not used, where that follows from the network alone: neither for detectors, whose
    losses see what they find, nor for a user's own network, which may not run without data. In a single process, nothing is done."""
    if started_by_torchrun() and plan.model_family.kind == "network" and plan.family != "custom":
        assert plan.recipe is not None
        edges = plan.volume.patch if plan.volume else (plan.recipe.patch, plan.recipe.patch)
        setattr(network, _IGNORED, unused_parameters(network, (2, plan.normalisation.channels, *edges)))


def needs_search(network: torch.nn.Module) -> bool:
    """Whether `leave_out_unused` could say nothing of a network."""
    return not hasattr(network, _IGNORED)


def unused_parameters(network: torch.nn.Module, shape: tuple[int, ...]) -> list[str]:
    """Names of the parameters that get no gradient. shape: of a batch (N, C, ...). Nothing is computed: a copy runs on shapes alone."""
    twin = copy.deepcopy(network).to("meta").train()
    said = twin(torch.empty(shape, device="meta"))
    total = torch.stack([level.sum() for level in (said if isinstance(said, tuple) else (said,))]).sum()
    names, parameters = zip(*twin.named_parameters(), strict=True)
    slopes = torch.autograd.grad(total, parameters, allow_unused=True)
    return [name for name, slope in zip(names, slopes, strict=True) if slope is None]

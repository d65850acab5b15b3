"""The processes that share a training (ranks): their number, their communication, and sums over all of them.

torchrun starts them (`segpipe.training.launch` if `train.devices` asks for several). They share each batch, and
DistributedDataParallel averages their gradients, so that weights stay equal. The first process writes files. In a single process,
all functions return their argument.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def started_by_torchrun() -> bool:
    """Return whether this is one of several processes of torchrun."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1


def fabric_options(find_unused_parameters: bool) -> dict[str, Any]:
    """Return the devices and the strategy for Lightning Fabric: what torchrun has started, or one device.

    Args:
        find_unused_parameters: whether each step must search for parameters without gradients, because they are not known or change.
    """
    if not started_by_torchrun():
        return {"devices": 1}
    from lightning_fabric.strategies import DDPStrategy

    processes, processes_here = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    strategy = DDPStrategy(find_unused_parameters=find_unused_parameters)
    return {"devices": processes_here, "num_nodes": processes // processes_here, "strategy": strategy}


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def sum_over_ranks(share: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes, each of which computes the same function of it.

    A loss made of such sums is that of the whole batch in each process, and so are the gradients that DDP averages: it is as if
    one process had seen all images. (The mean of the means within each process differs from the mean over all pixels if the
    processes count different numbers of pixels.)
    """
    return _SumOverRanks.apply(share) if world_size() > 1 else share


class _SumOverRanks(torch.autograd.Function):
    """The gradient of a process's share is that of the sum, times the number of processes because DDP averages."""

    @staticmethod
    def forward(_: Any, share: Tensor) -> Tensor:
        return _total(share)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return gradient * world_size()


def all_reduce_sum(share: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes, each of which computes something different from it."""
    return _AllReduceSum.apply(share) if world_size() > 1 else share


class _AllReduceSum(torch.autograd.Function):
    """The gradients of all processes with respect to the sum are added."""

    @staticmethod
    def forward(_: Any, share: Tensor) -> Tensor:
        return _total(share)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return _total(gradient)


def gather_over_ranks(share: Tensor, fill: float = 0.0) -> Tensor:
    """Concatenate the tensors of all processes along the last axis. Each process computes something different from the result.

    Args:
        share: (..., P); P may differ between processes.
        fill: the value with which each tensor is padded to the longest.
    """
    return _GatherOverRanks.apply(share, fill) if world_size() > 1 else share


class _GatherOverRanks(torch.autograd.Function):
    """The gradients of all processes are added, and each process takes its own part."""

    @staticmethod
    def forward(ctx: Any, share: Tensor, fill: float) -> Tensor:
        length = torch.tensor(share.shape[-1])
        dist.all_reduce(length, dist.ReduceOp.MAX, group=_host_group())
        longest, ctx.length = int(length), share.shape[-1]
        padded = torch.nn.functional.pad(share.detach(), (0, longest - ctx.length), value=fill).contiguous()
        parts = [torch.empty_like(padded) for _ in range(world_size())]
        dist.all_gather(parts, padded)
        return torch.cat(parts, -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        part = _total(gradient).chunk(world_size(), -1)[rank()]
        return part[..., : ctx.length], None


def _total(share: Tensor) -> Tensor:
    """Return the sum over all processes, without gradients."""
    total = share.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def mean_over_ranks(values: Tensor) -> Tensor:
    """Return the mean of a tensor over all processes."""
    return sum_over_ranks(values) / world_size() if world_size() > 1 else values


def sum_counts(counts: Any) -> Any:
    """Return the sum of an integer numpy array over all processes."""
    if world_size() == 1:
        return counts
    total = torch.from_numpy(counts).clone()
    dist.all_reduce(total, group=_host_group())
    return total.numpy()


def any_rank(condition: bool) -> bool:
    """Return whether the condition holds in any process. Communication is between hosts, so that no device is waited for."""
    if world_size() == 1:
        return condition
    vote = torch.tensor([int(condition)])
    dist.all_reduce(vote, dist.ReduceOp.MAX, group=_host_group())
    return bool(vote.item())


def broadcast_buffers(module: torch.nn.Module) -> None:
    """Copy the first process's buffers to all others: each has its own statistics of normalisation layers."""
    if world_size() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def leave_process_group() -> None:
    """Wait for the other processes and disconnect from them, when the training is done."""
    if world_size() > 1:
        dist.barrier(group=_host_group())
        dist.destroy_process_group()
        _host_group.cache_clear()


@functools.cache
def _host_group() -> Any:
    """Return a group of all processes that communicates through host memory, whatever devices they train on."""
    return dist.new_group(backend="gloo")

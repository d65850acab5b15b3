"""The processes that share a training (ranks): who they are, what they tell each other, and sums that span them.

torchrun starts them (`segpipe.training.launch` where `train.devices` asks for several). A batch is dealt out among
them, gradients are averaged (DistributedDataParallel), so that weights stay equal; the first process writes. All of it is void in a
single process.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def started_by_torchrun() -> bool:
    """Whether this is one of several processes of torchrun."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1


def fabric_options(search: bool) -> dict[str, Any]:
    """Devices and strategy for Lightning Fabric: what torchrun has started, or one device. search: for parameters without gradients, at
    each step: where it is not known, or changes, which they are."""
    if not started_by_torchrun():
        return {"devices": 1}
    from lightning_fabric.strategies import DDPStrategy

    ranks, here = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    strategy = DDPStrategy(find_unused_parameters=search)
    return {"devices": here, "num_nodes": ranks // here, "strategy": strategy}


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which one this is, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def sum_over_ranks(share: Tensor) -> Tensor:
    """The sum of a tensor over all processes, itself where there is one.

    A loss made of such sums is that of the whole batch in each process, and so are the gradients that DDP averages: it
    is as if one process had seen all images. (A mean within each process, averaged, is another number than the mean over
    all of them where the processes do not count equally many pixels.)
    """
    return _Everywhere.apply(share) if world_size() > 1 else share  # type: ignore[no-untyped-call, no-any-return]


class _Everywhere(torch.autograd.Function):
    """Every process computes the same function of the sum; its share of the gradient, times their number since DDP averages."""

    @staticmethod
    def forward(_: Any, share: Tensor) -> Tensor:
        return _total(share)

    @staticmethod
    def backward(_: Any, slope: Tensor) -> Tensor:  # type: ignore[override]
        return slope * world_size()


def all_reduce_sum(share: Tensor) -> Tensor:
    """The sum of a tensor over all processes, each of which goes on to compute something of its own with it."""
    return _Summed.apply(share) if world_size() > 1 else share  # type: ignore[no-untyped-call, no-any-return]


class _Summed(torch.autograd.Function):
    """What each process's further computation says of the sum adds up, too."""

    @staticmethod
    def forward(_: Any, share: Tensor) -> Tensor:
        return _total(share)

    @staticmethod
    def backward(_: Any, slope: Tensor) -> Tensor:  # type: ignore[override]
        return _total(slope)


def gather_over_ranks(own: Tensor, fill: float = 0.0) -> Tensor:
    """The last axes of all processes' tensors end to end, each with `fill` behind it up to the longest; itself where there is one. Each
    goes on to compute something of its own with it. own: (..., P), where P may differ."""
    return _Gathered.apply(own, fill) if world_size() > 1 else own  # type: ignore[no-untyped-call, no-any-return]


class _Gathered(torch.autograd.Function):
    """As `_Summed`; of that, each takes its own place."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, fill: float) -> Tensor:  # type: ignore[override]
        length = torch.tensor(own.shape[-1])
        dist.all_reduce(length, dist.ReduceOp.MAX, group=_on_hosts())
        longest, ctx.length = int(length), own.shape[-1]
        padded = torch.nn.functional.pad(own.detach(), (0, longest - ctx.length), value=fill).contiguous()
        parts = [torch.empty_like(padded) for _ in range(world_size())]
        dist.all_gather(parts, padded)
        return torch.cat(parts, -1)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        mine = _total(slope).chunk(world_size(), -1)[rank()]
        return mine[..., : ctx.length], None


def _total(share: Tensor) -> Tensor:
    """The sum over all processes, without gradients."""
    total = share.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def mean_over_ranks(values: Tensor) -> Tensor:
    """The mean of a tensor over the processes."""
    return sum_over_ranks(values) / world_size() if world_size() > 1 else values


def sum_counts(counts: Any) -> Any:
    """The sum of an integer numpy array over the processes."""
    if world_size() == 1:
        return counts
    total = torch.from_numpy(counts).clone()
    dist.all_reduce(total, group=_on_hosts())
    return total.numpy()


def any_rank(here: bool) -> bool:
    """Whether any process says yes. Asked between steps, on the hosts: no device is waited for."""
    if world_size() == 1:
        return here
    vote = torch.tensor([int(here)])
    dist.all_reduce(vote, dist.ReduceOp.MAX, group=_on_hosts())
    return bool(vote.item())


def broadcast_buffers(module: torch.nn.Module) -> None:
    """Give every process the first one's buffers: statistics of normalisation layers, each of which saw its own images."""
    if world_size() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def leave_process_group() -> None:
    """Part from the other processes, when the training is done."""
    if world_size() > 1:
        dist.barrier(group=_on_hosts())
        dist.destroy_process_group()
        _on_hosts.cache_clear()


@functools.cache
def _on_hosts() -> Any:
    """Processes by way of their hosts' memory, whatever devices they train on."""
    return dist.new_group(backend="gloo")

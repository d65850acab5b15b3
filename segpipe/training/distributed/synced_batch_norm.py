"""Batch normalisation over the whole batch if several processes train: each normalises by the statistics of all of them."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from segpipe.ops.swap import swap_class
from segpipe.training.distributed.process_group import all_reduce_sum, world_size


def sync_batch_norm(network: torch.nn.Module, device: str) -> torch.nn.Module:
    """Make batch normalisation use the images of all processes; in a single process, nothing changes.

    On GPUs, torch's own layer does it; it has no implementation for CPUs, for which `_normalise` does.

    Args:
        network: the network; layers change their class, but keep names and weights.
        device: "cpu" or "cuda".

    Returns:
        The network.
    """
    if world_size() == 1:
        return network
    from timm.layers import convert_sync_batchnorm

    if device == "cuda":  # not torch's function of that name, which drops the activation of timm's layers
        return convert_sync_batchnorm(network)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            swap_class(module, _synced(type(module)))  # type: ignore[arg-type]  # types are hashable
    return network


@cache
def _synced(layer_class: type[_BatchNorm]) -> type[_BatchNorm]:
    """Return a subclass that normalises over all processes; the layer may be timm's, which ends with an activation."""
    from timm.layers import BatchNormAct2d

    def forward(self: Any, x: Tensor) -> Tensor:
        if not self.training:
            return layer_class.forward(self, x)
        out = _normalise(self, x)
        return self.act(self.drop(out)) if isinstance(self, BatchNormAct2d) else out

    return type(layer_class.__name__, (layer_class,), {"forward": forward})


def _normalise(layer: _BatchNorm, x: Tensor) -> Tensor:
    """Normalise x (N, C, ...) by mean and variance over all processes, and update the layer's running statistics."""
    axes, shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
    wide = x.float()
    own_count = wide.new_full((1,), x.numel() // x.shape[1])
    sums = all_reduce_sum(torch.cat([wide.sum(axes), own_count]))
    count = sums[-1]
    mean = sums[:-1] / count
    centred = wide - mean.view(shape)
    variance = all_reduce_sum(centred.square().sum(axes)) / count
    if layer.track_running_stats:
        _update_statistics(layer, mean.detach(), variance.detach() * count / (count - 1).clamp_min(1))
    out = centred * (variance + layer.eps).rsqrt().view(shape)
    if layer.affine:
        out = out * layer.weight.view(shape) + layer.bias.view(shape)
    return out.to(x.dtype)


@torch.no_grad()
def _update_statistics(layer: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    assert layer.running_mean is not None and layer.running_var is not None and layer.num_batches_tracked is not None
    layer.num_batches_tracked.add_(1)
    share = 1 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
    layer.running_mean.lerp_(mean, share)
    layer.running_var.lerp_(variance, share)

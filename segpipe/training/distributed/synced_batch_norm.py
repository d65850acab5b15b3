"""Batch normalisation over the whole batch where several processes train: each normalises by the statistics of all of them."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from segpipe.training.distributed.process_group import all_reduce_sum, world_size


def sync_batch_norm(network: torch.nn.Module, device: str) -> torch.nn.Module:
    """The network with its batch normalisation over all processes; as it is where there is one. Names and weights stay.

    On GPUs by torch's own layer, which has no implementation for processors; there by `_normalised`.
    """
    if world_size() == 1:
        return network
    from timm.layers import convert_sync_batchnorm

    if device == "cuda":  # not torch's function of that name: it drops the activation that timm's layers end with
        return convert_sync_batchnorm(network)  # type: ignore[no-any-return]
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = _shared(type(module))  # type: ignore[arg-type]  # types are hashable
    return network


@cache
def _shared(kind: type[_BatchNorm]) -> type[_BatchNorm]:
    """Batch normalisation of this kind, which may be timm's that ends with an activation, over the images of all processes."""
    from timm.layers import BatchNormAct2d

    def forward(self: Any, x: Tensor) -> Tensor:
        if not self.training:
            return kind.forward(self, x)  # type: ignore[no-any-return]
        out = _normalised(self, x)
        return self.act(self.drop(out)) if isinstance(self, BatchNormAct2d) else out

    return type(kind.__name__, (kind,), {"forward": forward})


def _normalised(layer: _BatchNorm, x: Tensor) -> Tensor:
    """What `layer` makes of x (N, C, ...) in training, with mean and variance over all processes; moves its running statistics."""
    axes, shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
    wide = x.float()
    own = wide.new_full((1,), x.numel() // x.shape[1])
    total = all_reduce_sum(torch.cat([wide.sum(axes), own]))
    count = total[-1]
    mean = total[:-1] / count
    centred = wide - mean.view(shape)
    variance = all_reduce_sum(centred.square().sum(axes)) / count
    if layer.track_running_stats:
        _move(layer, mean.detach(), variance.detach() * count / (count - 1).clamp_min(1))
    out = centred * (variance + layer.eps).rsqrt().view(shape)
    if layer.affine:
        out = out * layer.weight.view(shape) + layer.bias.view(shape)
    return out.to(x.dtype)


@torch.no_grad()
def _move(layer: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    assert layer.running_mean is not None and layer.running_var is not None and layer.num_batches_tracked is not None
    layer.num_batches_tracked.add_(1)
    share = 1 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
    layer.running_mean.lerp_(mean, share)
    layer.running_var.lerp_(variance, share)

"""Muon: a kernel moves by the orthogonal matrix next to its momentum, so that rare directions count as much as common ones; what is no
matrix moves as by AdamW.

Jordan et al. 2024 (kellerjordan.github.io/posts/muon); scaled as by Liu et al. 2025, arXiv:2502.16982, so that a kernel moves about as
far as AdamW would move it. torch.optim.Muon takes nothing but matrices, and one after another: here kernels of one shape are
turned together, whatever their number of axes, and kernels that are much wider than high with about half the arithmetic.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

ARE_MATRICES = "matrices"
"""Of a group of parameters: whether they move as matrices."""
_MOMENTUM = 0.9
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration, by Jordan et al.: singular values end between about 0.7 and 1.2."""
_SPANS = (3, 2)
"""Iterations between two looks at the matrix itself. In bfloat16, more at once would lose its small singular values."""
_AS_FAR_AS_ADAMW = 0.2
_LEAST_EDGE = 16
"""Smaller ones, the heads of a few classes among them, move as by AdamW."""
_PAYS = 0.4
"""Share of the arithmetic of a step that turning kernels may cost. (Large products of matrices are the fastest arithmetic there is: of the
time, it is less.)"""


class Muon(torch.optim.AdamW):
    """Over groups of parameters as `torch.optim.AdamW` has them. half: kernels are turned in bfloat16 instead of float32."""

    def __init__(self, groups: list[dict[str, Any]], lr: float, half: bool) -> None:
        super().__init__([part for group in groups for part in _split(group)], lr=lr, fused=True)
        self._step_supports_amp_scaling = False  # a scaler of losses leaves out a whole step, not AdamW's part of it
        self.dtype = torch.bfloat16 if half else torch.float32

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """As of any optimiser."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group[ARE_MATRICES]]
        try:
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            if group[ARE_MATRICES]:
                self._move(group)
        return loss

    def _move(self, group: dict[str, Any]) -> None:
        by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for kernel in group["params"]:
            if kernel.grad is not None:
                by_shape[kernel.shape].append(kernel)
        for shape, kernels in by_shape.items():
            gradients: list[Tensor] = [kernel.grad for kernel in kernels]  # type: ignore[misc]
            moments = [self._momentum(kernel) for kernel in kernels]
            torch._foreach_lerp_(moments, gradients, 1 - _MOMENTUM)
            ahead = torch._foreach_lerp(gradients, moments, _MOMENTUM)
            turned = orthogonalise(torch.stack([_rows(one).to(self.dtype) for one in ahead]))
            rows, columns = _edges(kernels[0])
            torch._foreach_mul_(kernels, 1 - group["lr"] * group["weight_decay"])
            far = group["lr"] * _AS_FAR_AS_ADAMW * math.sqrt(max(rows, columns))
            torch._foreach_add_(kernels, [_as_kernel(one, shape) for one in turned], alpha=-far)

    def _momentum(self, kernel: Tensor) -> Tensor:
        known = self.state[kernel]
        if not known:
            known["momentum"] = torch.zeros_like(kernel)
        return known["momentum"]  # type: ignore[no-any-return]


def orthogonalise(matrices: Tensor) -> Tensor:
    """(K, M, N) -> the same with all singular values near 1: of U S V', about U V'. By products of matrices alone.

    An iteration multiplies x by a polynomial of the square matrix x x', and that of the next is known from it. So a span of iterations is
    worked out on square matrices, which are small beside kernels, and then turns x at once.
    """
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    precise = torch.promote_types(x.dtype, torch.float32)
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True, dtype=precise).clamp(min=1e-7).to(x.dtype)
    first = a * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    for iterations in _SPANS:
        square = x @ x.mT
        factor = turn = torch.baddbmm(square, square, square, beta=b, alpha=c) + first
        for _ in range(iterations - 1):
            square = factor @ square @ factor
            factor = torch.baddbmm(square, square, square, beta=b, alpha=c) + first
            turn = factor @ turn
        x = turn @ x
    return x.mT if tall else x


def is_worthwhile(network: torch.nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether turning its kernels is cheap beside a step on images of this shape. Counted on torch's meta device, so that it is the
    same everywhere; False where the network's way depends on the images."""
    from torch.utils.flop_counter import FlopCounterMode

    twin = copy.deepcopy(network).to("meta").train()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            twin(torch.empty(shape, device="meta"))
    except RuntimeError:
        return False
    forward_and_backward = 3 * counter.get_total_flops()
    return 0 < orthogonalisation_flops(network) <= _PAYS * forward_and_backward


def orthogonalisation_flops(network: torch.nn.Module) -> int:
    """Of one step of Muon, as `orthogonal` multiplies: a span has two products with the kernel itself, and between square matrices one for
    its first factor and four for each further iteration."""
    edges = [sorted(_edges(kernel)) for kernel in network.parameters() if _is_matrix(kernel)]
    large = 2 * len(_SPANS)
    small = sum(4 * iterations - 3 for iterations in _SPANS)
    return 2 * sum(large * short**2 * long + small * short**3 for short, long in edges)


def _split(group: dict[str, Any]) -> list[dict[str, Any]]:
    parts = {kind: [p for p in group["params"] if _is_matrix(p) == kind] for kind in (True, False)}
    return [group | {"params": parameters, ARE_MATRICES: kind} for kind, parameters in parts.items() if parameters]


def _is_matrix(parameter: Tensor) -> bool:
    """Whether it maps many channels to many: no bias or scale, no depthwise kernel, no small head."""
    depthwise = parameter.ndim > 2 and parameter.shape[1] == 1
    return parameter.ndim > 1 and not depthwise and min(_edges(parameter)) >= _LEAST_EDGE


def _edges(kernel: Tensor) -> tuple[int, int]:
    """Rows and columns of a kernel as a matrix: output channels, and all else."""
    return kernel.shape[0], kernel[0].numel()


def _rows(kernel: Tensor) -> Tensor:
    """(O, I, ...) -> (O, ... * I): in the order in which channels-last kernels lie in memory."""
    return kernel.movedim(1, -1).flatten(1)


def _as_kernel(matrix: Tensor, shape: torch.Size) -> Tensor:
    """`_rows` undone."""
    return matrix.view(shape[0], *shape[2:], shape[1]).movedim(-1, 1)

"""Muon: a kernel moves by the orthogonal matrix nearest to its momentum, so that rare directions count as much as common ones.

Jordan et al. 2024 (kellerjordan.github.io/posts/muon); scaled as by Liu et al. 2025, arXiv:2502.16982, so that a kernel moves about as
far as with AdamW. Parameters that are not matrices are updated by AdamW. torch.optim.Muon accepts matrices only, and processes one
after another; here, kernels of the same shape are orthogonalised together, with any number of axes, and kernels that are much wider
than high need about half the arithmetic.
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
"""Key of a parameter group: whether its parameters are updated as matrices."""
_MOMENTUM = 0.9
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration, by Jordan et al.: singular values end between about 0.7 and 1.2."""
_SPANS = (3, 2)
"""Iterations between two uses of the matrix itself. In bfloat16, longer spans would lose its small singular values."""
_ADAMW_STEP_SIZE = 0.2
"""The root mean square of AdamW's updates, which Muon's are scaled to."""
_MIN_MATRIX_EDGE = 16
"""Smaller kernels, such as the heads of a few classes, are updated by AdamW."""
_MAX_FLOPS_SHARE = 0.4
"""Largest share of the arithmetic of a step that orthogonalisation may add. (Products of large matrices are the fastest arithmetic
there is, so its share of the time is lower.)"""


class Muon(torch.optim.AdamW):
    """The optimiser.

    Args:
        groups: parameter groups, as for `torch.optim.AdamW`.
        lr: the learning rate.
        half: whether kernels are orthogonalised in bfloat16 instead of float32.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, half: bool) -> None:
        super().__init__([part for group in groups for part in _split(group)], lr=lr, fused=True)
        # A gradient scaler must skip a whole step, not only AdamW's part of it.
        self._step_supports_amp_scaling = False
        self.dtype = torch.bfloat16 if half else torch.float32

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step, as `torch.optim.Optimizer.step` does."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group[ARE_MATRICES]]
        try:
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            if group[ARE_MATRICES]:
                self._update_matrices(group)
        return loss

    def _update_matrices(self, group: dict[str, Any]) -> None:
        by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for kernel in group["params"]:
            if kernel.grad is not None:
                by_shape[kernel.shape].append(kernel)
        for shape, kernels in by_shape.items():
            gradients: list[Tensor] = [kernel.grad for kernel in kernels]  # type: ignore[misc]
            moments = [self._momentum(kernel) for kernel in kernels]
            torch._foreach_lerp_(moments, gradients, 1 - _MOMENTUM)
            nesterov = torch._foreach_lerp(gradients, moments, _MOMENTUM)
            updates = orthogonalise(torch.stack([_as_matrix(update).to(self.dtype) for update in nesterov]))
            rows, columns = _matrix_edges(kernels[0])
            torch._foreach_mul_(kernels, 1 - group["lr"] * group["weight_decay"])
            step_size = group["lr"] * _ADAMW_STEP_SIZE * math.sqrt(max(rows, columns))
            torch._foreach_add_(kernels, [_as_kernel(update, shape) for update in updates], alpha=-step_size)

    def _momentum(self, kernel: Tensor) -> Tensor:
        state = self.state[kernel]
        if not state:
            state["momentum"] = torch.zeros_like(kernel)
        return state["momentum"]


def orthogonalise(matrices: Tensor) -> Tensor:
    """Bring all singular values of matrices near 1: for U S V', the result is about U V'. Only products of matrices are used.

    An iteration multiplies x by a polynomial of the square matrix x x', from which that of the next iteration follows. So the factors
    of several iterations are computed on square matrices, which are small compared with kernels, and then applied to x at once.

    Args:
        matrices: (K, M, N).

    Returns:
        (K, M, N).
    """
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    norm_dtype = torch.promote_types(x.dtype, torch.float32)
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True, dtype=norm_dtype).clamp(min=1e-7).to(x.dtype)
    linear_term = a * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    for iterations in _SPANS:
        square = x @ x.mT
        factor = product = torch.baddbmm(square, square, square, beta=b, alpha=c) + linear_term
        for _ in range(iterations - 1):
            square = factor @ square @ factor
            factor = torch.baddbmm(square, square, square, beta=b, alpha=c) + linear_term
            product = factor @ product
        x = product @ x
    return x.mT if tall else x


def is_worthwhile(network: torch.nn.Module, shape: tuple[int, ...]) -> bool:
    """Return whether orthogonalising a network's kernels is cheap compared with a step.

    It is counted on torch's meta device, so that the result is the same on every machine.

    Args:
        network: the network.
        shape: shape of the images of a step, (N, C, ...).

    Returns:
        False also if the network's control flow depends on pixel values.
    """
    from torch.utils.flop_counter import FlopCounterMode

    twin = copy.deepcopy(network).to("meta").train()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            twin(torch.empty(shape, device="meta"))
    except RuntimeError:
        return False
    forward_and_backward = 3 * counter.get_total_flops()
    return 0 < orthogonalisation_flops(network) <= _MAX_FLOPS_SHARE * forward_and_backward


def orthogonalisation_flops(network: torch.nn.Module) -> int:
    """Count the floating-point operations of `orthogonalise` for one step of Muon.

    A span has two products with the kernel itself; of products of square matrices, it has one for its first factor and four for each
    further iteration.
    """
    edges = [sorted(_matrix_edges(kernel)) for kernel in network.parameters() if _is_matrix(kernel)]
    large = 2 * len(_SPANS)
    small = sum(4 * iterations - 3 for iterations in _SPANS)
    return 2 * sum(large * short**2 * long + small * short**3 for short, long in edges)


def _split(group: dict[str, Any]) -> list[dict[str, Any]]:
    """Split a parameter group into matrices and others."""
    parts = {kind: [p for p in group["params"] if _is_matrix(p) == kind] for kind in (True, False)}
    return [group | {"params": parameters, ARE_MATRICES: kind} for kind, parameters in parts.items() if parameters]


def _is_matrix(parameter: Tensor) -> bool:
    """Return whether a parameter maps many channels to many; biases, scales, depthwise kernels and small heads do not."""
    depthwise = parameter.ndim > 2 and parameter.shape[1] == 1
    return parameter.ndim > 1 and not depthwise and min(_matrix_edges(parameter)) >= _MIN_MATRIX_EDGE


def _matrix_edges(kernel: Tensor) -> tuple[int, int]:
    """Return the rows and columns of a kernel as a matrix: output channels, and everything else."""
    return kernel.shape[0], kernel[0].numel()


def _as_matrix(kernel: Tensor) -> Tensor:
    """View a kernel as a matrix, in the memory order of channels-last kernels: (O, I, ...) -> (O, ... * I)."""
    return kernel.movedim(1, -1).flatten(1)


def _as_kernel(matrix: Tensor, shape: torch.Size) -> Tensor:
    """Undo `_as_matrix`."""
    return matrix.view(shape[0], *shape[2:], shape[1]).movedim(-1, 1)

"""How much memory a training step needs, computed from shapes alone: on a processor, the system ends a process that takes too much
without an error that could be met."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from segpipe.training.plan import Plan

_COPIES = 8
"""Of the weights: themselves, gradients, two moments, running average, best so far, a checkpoint, and one in passing."""
_SHARE = 0.8
"""Of the free memory that a step may take."""
_BACKWARD = 1.5
"""What the backward pass holds at its peak, against what the forward pass leaves it."""


def activation_bytes(network: torch.nn.Module, shape: tuple[int, ...]) -> int:
    """Bytes that a forward pass on float32 images of this shape keeps for the backward pass, up to and with a softmax over the
    classes. Nothing is computed: it runs on torch's meta device."""
    twin = copy.deepcopy(network).to("meta").train()
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage  # held, so that its address stays its own
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        said = twin(torch.empty(shape, device="meta"))
        for logits in said if isinstance(said, tuple) else (said,):
            logits.float().log_softmax(1)
    own = {value.untyped_storage()._cdata for value in [*twin.parameters(), *twin.buffers()]}
    return sum(storage.nbytes() for address, storage in kept.items() if address not in own)


def step_bytes(plan: Plan, network: torch.nn.Module) -> int:
    """About what a step of a plan needs in float32; of its batch, one part at a time."""
    recipe = plan.recipe
    assert recipe is not None
    ranks = plan.execution.devices if plan.execution else 1
    images = -(-recipe.batch // recipe.accumulate // ranks)
    edges = plan.volume.patch if plan.volume else (recipe.patch,) * 2
    weights = sum(value.nbytes for value in network.parameters())
    kept = activation_bytes(network, (images, plan.normalisation.channels, *edges))
    return _COPIES * weights + int(_BACKWARD * kept)


def available_bytes(group: Path = Path("/sys/fs/cgroup")) -> int:
    """Memory that this process may still take: what the machine has free, or the control group leaves."""
    import psutil  # type: ignore[import-untyped]

    free: int = psutil.virtual_memory().available
    limit, used, detail = (group / name for name in ("memory.max", "memory.current", "memory.stat"))
    if limit.exists() and used.exists() and (most := limit.read_text().strip()) != "max":
        stat = dict(line.split() for line in detail.read_text().splitlines()) if detail.exists() else {}
        held = int(used.read_text()) - int(stat.get("inactive_file", 0))  # pages of files are given back when asked for
        free = min(free, max(0, int(most) - held))
    return free


def in_parts_that_fit(
    draft: Plan, network: torch.nn.Module, room: int, reasons: dict[str, str], ranks: int = 1
) -> Plan:
    """The draft with its batch in as many parts as `room` bytes ask for, as far as there is something to halve. ranks: processes that
    share the batch and the room."""
    of = draft.model_family
    if of.kind != "network":  # a detector's memory follows from what it finds
        return draft
    try:
        recipe, need = draft.recipe, step_bytes(draft, network)
    except RuntimeError:  # a network whose way depends on its input's values: what it needs shows when it runs
        return draft
    assert recipe is not None
    while need > _SHARE * room and recipe.batch // ranks // (2 * recipe.accumulate) >= max(1, of.least_batch):
        recipe = recipe.model_copy(update={"accumulate": 2 * recipe.accumulate})
        draft = draft.model_copy(update={"recipe": recipe})
        reasons["accumulation"] = (
            f"{recipe.accumulate} parts a batch: a step would take {need >> 20:,} MiB, and {room >> 20:,} MiB are free"
        )
        need = step_bytes(draft, network)
    return draft

"""The memory that a training step needs, computed from shapes alone, and the number of parts in which a batch fits.

On a CPU, the system ends a process that takes too much memory, without an error that could be handled; so it is computed beforehand.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

from segpipe.progress import say
from segpipe.training.memory import free_unused_memory, is_out_of_memory, twice_as_many_parts
from segpipe.training.memory_reserve import release_piece, reserve

if TYPE_CHECKING:
    from segpipe.training.plan import RecipePlan
    from segpipe.training.planning.plan_draft import PlanDraft

T = TypeVar("T")
_WEIGHT_COPIES = 8
"""Copies of the weights: weights, gradients, two moments, running average, best so far, a checkpoint, and a temporary one."""
_MAX_SHARE = 0.8
"""Share of the available memory that a step may take."""
_BACKWARD_FACTOR = 1.5
"""Peak memory of the backward pass, divided by the activations that the forward pass keeps for it."""


def activation_bytes(network: torch.nn.Module, shape: tuple[int, ...]) -> int:
    """Compute the bytes that a forward pass keeps for the backward pass, including a softmax over the classes.

    Nothing is computed: a copy of the network runs on torch's meta device.

    Args:
        network: the network.
        shape: shape of the float32 images, (N, C, ...).
    """
    twin = copy.deepcopy(network).to("meta").train()
    storages: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage  # a reference, so that the address is not used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = twin(torch.empty(shape, device="meta"))
        for logits in outputs if isinstance(outputs, tuple) else (outputs,):
            logits.float().log_softmax(1)
    of_network = {value.untyped_storage()._cdata for value in [*twin.parameters(), *twin.buffers()]}
    return sum(storage.nbytes() for address, storage in storages.items() if address not in of_network)


def step_bytes(plan: RecipePlan, network: torch.nn.Module) -> int:
    """Estimate the bytes that a step of a plan needs in float32, with one part of its batch at a time."""
    recipe = plan.recipe
    processes = plan.execution.devices if plan.execution else 1
    images = -(-recipe.batch // recipe.accumulate // processes)
    weights = sum(value.nbytes for value in network.parameters())
    activations = activation_bytes(network, (images, plan.normalisation.channels, *plan.crop_edges))
    return _WEIGHT_COPIES * weights + int(_BACKWARD_FACTOR * activations)


def available_bytes(group: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the memory that this process may still take: what the machine has available, or the control group allows."""
    import psutil

    available: int = psutil.virtual_memory().available
    limit, used, details = (group / name for name in ("memory.max", "memory.current", "memory.stat"))
    if limit.exists() and used.exists() and (max_bytes := limit.read_text().strip()) != "max":
        stat = dict(line.split() for line in details.read_text().splitlines()) if details.exists() else {}
        file_pages = int(stat.get("inactive_file", 0))  # these are given back on demand
        available = min(available, max(0, int(max_bytes) - (int(used.read_text()) - file_pages)))
    return available


def split_to_fit(draft: PlanDraft, network: torch.nn.Module, available: int, world_size: int = 1) -> None:
    """Compute the draft's batch in as many parts as the available memory requires, as far as it can be split.

    Args:
        draft: the plan so far; its recipe and the reason are changed.
        network: its network.
        available: bytes that a step may take.
        world_size: processes that share the batch and the memory.
    """
    if draft.family.kind != "network":  # the memory of a detector depends on the instances that it finds
        return
    try:
        needed = step_bytes(draft.plan, network)
    except RuntimeError:  # the network's control flow depends on pixel values, which the meta device does not have
        return
    while needed > _MAX_SHARE * available:
        recipe = draft.plan.recipe
        if recipe.batch // world_size // (2 * recipe.accumulate) < max(1, draft.family.min_batch):
            return
        parts = 2 * recipe.accumulate
        draft.choose(recipe=recipe.model_copy(update={"accumulate": parts}))
        draft.explain(
            "accumulation",
            f"{parts} parts per batch: a step would take {needed >> 20:,} MiB, and {available >> 20:,} MiB are available",
        )
        needed = step_bytes(draft.plan, network)


def measure_within_memory(draft: PlanDraft, measure: Callable[[], T], world_size: int = 1) -> T:
    """Call `measure`; whenever it runs out of memory, compute the draft's batch in twice as many parts and call it again.

    Args:
        draft: the plan so far; its recipe and the reason are changed.
        measure: runs real steps of the draft.
        world_size: processes that share the batch.

    Returns:
        The result of `measure`.

    Raises:
        ConfigError: The batch cannot be split further.
    """
    reserve()
    while True:
        recipe = draft.plan.recipe
        try:
            return measure()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            images = recipe.batch // world_size
            parts = twice_as_many_parts(recipe.accumulate, images, draft.family.min_batch, error)
        # Outside of the handler, so that the tensors of the failed step went with its traceback.
        release_piece()
        free_unused_memory()
        reason = f"{parts} parts per batch: in {recipe.accumulate}, it does not fit in memory"
        draft.explain("accumulation", reason)
        say(f"note: a batch of {recipe.batch} in {recipe.accumulate} does not fit in memory; trying {parts} parts")
        draft.choose(recipe=recipe.model_copy(update={"accumulate": parts}))

"""A batch in as many parts as memory asks for: planned ones, and those that a training falls back to.

A batch of N images in k parts (`train.accumulate`) gives the sum of the parts' gradients, each weighted by its share of the
images. What that leaves equal to the batch in one piece:

- a loss that is a mean over equally many pixels of each image, such as cross entropy without class weights where no pixel is
  ignored: all of it, but for rounding;
- cross entropy with class weights or ignored pixels: each part is a mean by its own weights, so the parts count by their images,
  not by their weights;
- Dice and the like: sums over each part, not over the batch, and only over classes that the part holds;
- batch normalisation: statistics of each part, and a running average that takes k smaller steps.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from segpipe.errors import ConfigError, SegpipeError
from segpipe.files import read_json, write_json
from segpipe.progress import say
from segpipe.training.distributed.process_group import world_size
from segpipe.training.memory_reserve import release_piece, reserve

if TYPE_CHECKING:
    from segpipe.training.plan import Plan
    from segpipe.training.step import Stepper

PARTS_FILE = "parts.json"
T = TypeVar("T")
_WORDS = (
    "can't allocate memory",  # torch, on Linux
    "not enough memory",  # torch, elsewhere
    "bad_alloc",
    "could not create a memory",  # oneDNN, for a tensor
    "could not create a primitive",  # oneDNN, for a kernel: where it says so of one it does not have, no part is small enough, either
    "_STATUS_ALLOC_FAILED",  # cuBLAS, cuDNN
)


def check_parts(batch: int, parts: int, processes: int, least: int) -> None:
    """Raise ConfigError where a batch, shared by processes and computed in parts, leaves a part fewer than `least` images."""
    if batch // processes // parts < max(1, least):
        raise ConfigError(
            f"a batch of {batch}, shared by {processes} process(es), in {parts} part(s) each, leaves fewer than {max(1, least)} for one",
            where="train.batch",
            found=batch,
            fix=f"set it to {max(1, least) * parts * processes} or more, or train.accumulate to 1",
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocator, of the device or of the host, had no more to give."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


class RankOutOfMemory(SegpipeError):
    """One of several processes ran out of memory. The others are in the middle of a sum over all, and can't be asked for anything."""

    def __init__(self, step: int, parts: int) -> None:
        super().__init__(
            f"out of memory at step {step} in one of several processes",
            where="train.accumulate",
            fix=f"the same command again goes on from the last checkpoint, in {parts} parts a batch",
        )
        self.parts = parts


def save_parts(checkpoints: Path, plan: Plan, parts: int) -> None:
    """Leave word for the processes that go on from these checkpoints: in how many parts a batch fits."""
    write_json(checkpoints / PARTS_FILE, {"plan": plan.sha256, "parts": parts})


def load_parts(checkpoints: Path, plan: Plan) -> int:
    """What `note_parts` left for this plan; 1 where nothing."""
    path = checkpoints / PARTS_FILE
    noted = read_json(path) if path.exists() else {}
    return int(noted["parts"]) if noted.get("plan") == plan.sha256 else 1


def step_within_memory(stepper: Stepper, number: int, images: Tensor, known: Any, seed: int) -> Tensor:
    """`Stepper.step`, tried again in twice as many parts where memory runs out, as long as there is something to halve.

    The stepper keeps the number of parts for the steps that follow. Weights are as before the failed attempt, for they change
    at its end; running statistics of normalisation layers may have seen some of its images twice.
    Raises ConfigError where a part is as small as it may be. One of several processes can't fall back alone: it raises `TooMuch`, with
    which all of them end, to start again in more parts.
    """
    while True:
        try:
            return stepper.step(number, images, known, seed)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            parts = _twice(stepper.accumulate, stepper.recipe.batch // world_size(), stepper.least_batch, error)
            if world_size() > 1:
                raise RankOutOfMemory(number + 1, parts) from error
        # Past the handler, so that the failed step's tensors went with its traceback.
        stepper.optimizer.zero_grad(set_to_none=True)
        release_piece()
        free_unused_memory()
        stepper.accumulate = parts
        say(
            f"note: out of memory at step {number + 1}: from here on a batch of {len(images)} is computed in {parts} parts of "
            f"{len(images) // parts} (normalisation over the batch and Dice see a part at a time)"
        )


def planned_to_fit(draft: Plan, measure: Callable[[Plan], T], reasons: dict[str, str], ranks: int = 1) -> T:
    """What `measure` finds of a plan, in twice as many parts where memory runs out while it measures real steps. ranks: processes that
    share the batch."""
    reserve()
    while True:
        recipe = draft.recipe
        assert recipe is not None
        try:
            return measure(draft)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            parts = _twice(recipe.accumulate, recipe.batch // ranks, draft.model_family.least_batch, error)
        release_piece()
        free_unused_memory()
        reasons["accumulation"] = f"{parts} parts a batch: in {recipe.accumulate}, it does not fit in memory"
        say(f"note: a batch of {recipe.batch} in {recipe.accumulate} does not fit in memory; trying {parts} parts")
        draft = draft.model_copy(update={"recipe": recipe.model_copy(update={"accumulate": parts})})


def free_unused_memory() -> None:
    """Give back what is no longer used."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _twice(parts: int, images: int, least: int, error: BaseException) -> int:
    """Twice as many parts, where each still has an image (or two, for networks that need two)."""
    doubled = 2 * parts
    if images // doubled < max(1, least):
        raise ConfigError(
            f"out of memory with {images // parts} image{'s'[: images // parts > 1]} at a time",
            where="train.patch",
            fix="set a smaller patch or a smaller network, or train on a machine with more memory",
        ) from error
    return doubled

"""A batch in as many parts as memory requires: those that were planned, and those that a training falls back to.

A batch of N images in k parts (`train.accumulate`) gives the sum of the parts' gradients, each weighted by its share of the
images. How that differs from the batch in one piece:

- a loss that is a mean over equally many pixels of each image, such as cross entropy without class weights and without ignored
  pixels: only by rounding;
- cross entropy with class weights or ignored pixels: each part is a mean with its own weights, so the parts are weighted by their
  images, not by their weights;
- Dice and similar losses: the sums are over each part, not over the batch, and only over classes that occur in the part;
- batch normalisation: the statistics are those of each part, and the running average takes k smaller steps.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from segpipe.errors import ConfigError, SegpipeError
from segpipe.files import read_json, write_json
from segpipe.progress import say
from segpipe.training.distributed.process_group import world_size
from segpipe.training.memory_reserve import release_piece

if TYPE_CHECKING:
    from segpipe.training.plan import Plan
    from segpipe.training.step import Stepper

PARTS_FILE = "parts.json"
_MESSAGES = (
    "can't allocate memory",  # torch, on Linux
    "not enough memory",  # torch, elsewhere
    "bad_alloc",
    "could not create a memory",  # oneDNN, for a tensor
    "could not create a primitive",  # oneDNN, for a kernel; also if it has no such kernel, but then no part is small enough either
    "_STATUS_ALLOC_FAILED",  # cuBLAS, cuDNN
)
"""Parts of the messages by which libraries report that memory ran out."""


def check_parts(batch: int, parts: int, processes: int, min_images: int) -> None:
    """Check that each part of a batch has enough images.

    Args:
        batch: images per batch.
        parts: parts in which each process computes its share.
        processes: processes that share the batch.
        min_images: the least number of images that the network can be trained on.

    Raises:
        ConfigError: A part would have fewer images.
    """
    least = max(1, min_images)
    if batch // processes // parts < least:
        raise ConfigError(
            f"a batch of {batch}, shared by {processes} process(es), in {parts} part(s) each, leaves fewer than {least} image(s) per "
            "part",
            where="train.batch",
            found=batch,
            fix=f"set it to {least * parts * processes} or more, or train.accumulate to 1",
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error reports that the memory of the device or of the host ran out."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)


class RankOutOfMemory(SegpipeError):
    """One of several processes ran out of memory; the others are inside a collective operation and cannot change their plans."""

    def __init__(self, step: int, parts: int) -> None:
        super().__init__(
            f"out of memory at step {step} in one of several processes",
            where="train.accumulate",
            fix=f"run the same command again: it continues from the last checkpoint, in {parts} parts per batch",
        )
        self.parts = parts


def save_parts(checkpoints: Path, plan: Plan, parts: int) -> None:
    """Record in how many parts a batch fits, for the processes that continue from these checkpoints."""
    write_json(checkpoints / PARTS_FILE, {"plan": plan.sha256, "parts": parts})


def load_parts(checkpoints: Path, plan: Plan) -> int:
    """Return the number of parts that `save_parts` recorded for this plan; 1 if there is no record."""
    path = checkpoints / PARTS_FILE
    record = read_json(path) if path.exists() else {}
    return int(record["parts"]) if record.get("plan") == plan.sha256 else 1


def step_within_memory(stepper: Stepper, number: int, images: Tensor, labels: Any, seed: int) -> Tensor:
    """Take a step; if memory runs out, try again in twice as many parts, as long as the batch can be split.

    The stepper keeps the number of parts for later steps. Weights change only at the end of a step, so a failed attempt leaves them
    as they were; running statistics of normalisation layers may have seen some images twice.

    Args:
        stepper: the network in training.
        number: number of the step, from 0.
        images: (N, C, ...) float32.
        labels: the labels of the images, as the objective takes them.
        seed: the seed of the training.

    Returns:
        The loss, a scalar on the device.

    Raises:
        ConfigError: A part cannot be smaller.
        RankOutOfMemory: Several processes train. One cannot fall back alone, so all of them end, to start again in more parts.
    """
    while True:
        try:
            return stepper.step(number, images, labels, seed)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            own_images = stepper.recipe.batch // world_size()
            parts = twice_as_many_parts(stepper.accumulate, own_images, stepper.min_batch, error)
            if world_size() > 1:
                raise RankOutOfMemory(number + 1, parts) from error
        # Outside of the handler, so that the tensors of the failed step went with its traceback.
        stepper.optimizer.zero_grad(set_to_none=True)
        release_piece()
        free_unused_memory()
        stepper.accumulate = parts
        say(
            f"note: out of memory at step {number + 1}: from here on a batch of {len(images)} is computed in {parts} parts of "
            f"{len(images) // parts} (batch normalisation and Dice see one part at a time)"
        )


def free_unused_memory() -> None:
    """Release memory that is no longer used, including torch's cache on a GPU."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def twice_as_many_parts(parts: int, images: int, min_images: int, error: BaseException) -> int:
    """Return twice as many parts.

    Args:
        parts: the number of parts that did not fit into memory.
        images: images of the batch in each process.
        min_images: the least number of images that the network can be trained on.
        error: the error that reported it.

    Raises:
        ConfigError: A part would then have too few images.
    """
    doubled = 2 * parts
    if images // doubled < max(1, min_images):
        plural = "s" if images // parts > 1 else ""
        raise ConfigError(
            f"out of memory with {images // parts} image{plural} at a time",
            where="train.patch",
            fix="set a smaller patch, choose a smaller network, or train on a machine with more memory",
        ) from error
    return doubled

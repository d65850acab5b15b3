"""Training batches: crops of the shards, each one a function of (seed, position) alone.

Position ``step * batch + place`` says everything about a sample: the image, the place of the crop, each draw of the
augmentation. So the stream is the same for any number of workers, and a run that was killed continues with the sample it would have seen.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from segpipe.augment import build_augment, window_edge
from segpipe.samples import IGNORE, Sample

if TYPE_CHECKING:
    import torch

    from segpipe.training.plan import Plan, Recipe

_PATIENCE = 4
"""Batches that each worker prepares ahead."""


class Reader(Protocol):
    """The samples of a split, as `segpipe.data.shards.ShardReader` gives them."""

    @property
    def class_pixels(self) -> npt.NDArray[np.int64]:
        """Pixels of each class in each sample, shape (n, n_classes)."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...


class Crops:
    """Training samples by position: ``crops[position] -> (image (C, P, P) float32 normalised, labels (P, P) uint8)``."""

    def __init__(self, reader: Reader, plan: Plan) -> None:
        assert plan.recipe is not None
        self.reader, self.plan, self.recipe = reader, plan, plan.recipe
        present = np.asarray(reader.class_pixels) > 0
        self._holders = [np.flatnonzero(column) for column in present.T]
        self._classes = [index for index, holders in enumerate(self._holders) if len(holders)]
        self._window = window_edge(self.recipe.augment, self.recipe.patch)
        self._augment = build_augment(
            self.recipe.augment,
            plan.normalisation.channels,
            plan.dtype,
            self.recipe.patch,
            self.recipe.free_orientation,
        )

    def __getitem__(self, position: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        draws = np.random.default_rng((self.plan.seed, position))
        rare = bool(self._classes) and draws.random() < self.recipe.rare_crops
        wanted = int(draws.choice(self._classes)) if rare else None
        index = int(draws.choice(self._holders[wanted])) if wanted is not None else self._shuffled(position)
        sample = self.reader[index]
        assert sample.labels is not None
        place = self._place(sample.labels, wanted, draws)
        image, labels = cut(sample.image, sample.labels, place, self._window, self.recipe.patch)
        image, labels = self._augment(image, labels, int(draws.integers(1 << 62)))
        return self.plan.normalisation.apply(image), np.ascontiguousarray(labels)

    def _shuffled(self, position: int) -> int:
        """Every image once an epoch, in an order of that epoch."""
        epoch, place = divmod(position, len(self.reader))
        return int(_epoch_order(self.plan.seed, epoch, len(self.reader))[place])

    def _place(self, labels: npt.NDArray[np.uint8], wanted: int | None, draws: np.random.Generator) -> tuple[int, int]:
        """Top and left of the window: anywhere, or so that a pixel of the wanted class lies in its middle half."""
        ends = [max(0, size - self._window) for size in labels.shape]
        if wanted is None:
            return int(draws.integers(ends[0] + 1)), int(draws.integers(ends[1] + 1))
        pixels = np.flatnonzero(labels == wanted)
        center = divmod(int(pixels[draws.integers(len(pixels))]), labels.shape[1])
        offsets = draws.integers(self._window // 4, self._window - self._window // 4, 2)
        top, left = (int(np.clip(c - o, 0, end)) for c, o, end in zip(center, offsets, ends, strict=True))
        return top, left


@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, length: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng((seed, epoch, 1)).permutation(length)


def cut(
    image: np.ndarray, labels: npt.NDArray[np.uint8], place: tuple[int, int], window: int, patch: int
) -> tuple[np.ndarray, npt.NDArray[np.uint8]]:
    """A window of an image (H, W, C) and its labels (H, W), padded evenly to at least `patch`: mirrored pixels, ignored labels."""
    rows, columns = (slice(start, start + window) for start in place)
    image, labels = image[rows, columns], labels[rows, columns]
    short = [max(0, patch - size) for size in labels.shape]
    if any(short):
        around = [(s // 2, s - s // 2) for s in short]
        image = np.pad(image, [*around, (0, 0)], mode="reflect" if min(labels.shape) > 1 else "edge")
        labels = np.pad(labels, around, constant_values=IGNORE)
    return image, labels


def batches(
    crops: Crops,
    recipe: Recipe,
    workers: int,
    first_step: int = 0,
    last_step: int | None = None,
    rank: int = 0,
    ranks: int = 1,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of steps `first_step` .. `last_step` - 1, in order: images (N, C, P, P) float32, labels (N, P, P) uint8.

    With several processes, each takes every `ranks`-th sample of a batch.
    """
    from torch.utils.data import DataLoader

    steps = range(first_step, recipe.steps if last_step is None else last_step)
    places: Sequence[list[int]] = [list(range(s * recipe.batch + rank, (s + 1) * recipe.batch, ranks)) for s in steps]
    loader: DataLoader[tuple[torch.Tensor, torch.Tensor]] = DataLoader(
        crops,  # type: ignore[arg-type]
        batch_sampler=places,
        num_workers=workers,
        prefetch_factor=_PATIENCE if workers else None,
        worker_init_fn=_leave_interrupts_to_the_parent,
    )
    return iter(loader)


def _leave_interrupts_to_the_parent(_: int) -> None:
    """Ctrl-C reaches every process of a terminal; the parent alone decides when to stop, and its end ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

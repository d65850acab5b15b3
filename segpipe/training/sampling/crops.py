"""Training batches: crops of the shards, each one a function of (seed, position) alone.

Position ``step * batch + index`` determines everything about a sample: the image, the location of the crop, each draw of the
augmentation. So the stream is the same for any number of workers, and a training that was killed continues with the sample that it
would have seen.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from segpipe.inference.preprocess import Normalisation
from segpipe.samples import IGNORE, Sample
from segpipe.training.sampling.augmentation import build_augment, window_edge

if TYPE_CHECKING:
    import torch

    from segpipe.training.plan import FirstCrops, Recipe, RecipePlan

CACHE_SIZE = 1 << 12
"""Images (or pairs of image and class) whose normalisation (or voxels) are cached: a few numbers each."""
_PREFETCHED_BATCHES = 4
"""Batches that each worker prepares ahead."""


class Reader(Protocol):
    """The samples of a split, as `segpipe.data.shards.ShardReader` provides them."""

    @property
    def class_pixels(self) -> npt.NDArray[np.int64]:
        """Pixels of each class in each sample, shape (n, n_classes)."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...


class Samples(Protocol):
    """Training samples by position; each follows from (seed, position) alone."""

    def __getitem__(self, position: int) -> tuple[npt.NDArray[np.float32], Any]: ...


class Crops:
    """Training samples by position: ``crops[position] -> (image (C, P, P) float32 normalised, labels (P, P) uint8)``.

    Args:
        reader: the training split.
        plan: the plan of the training.
        first: the crops of the first steps of a progressive training; None: full crops.
    """

    def __init__(self, reader: Reader, plan: RecipePlan, first: FirstCrops | None = None) -> None:
        self.reader, self.plan, self.recipe = reader, plan, plan.recipe
        present = np.asarray(reader.class_pixels) > 0
        self._images_by_class = [np.flatnonzero(column) for column in present.T]
        self._classes = [class_id for class_id, images in enumerate(self._images_by_class) if len(images)]
        edge, self._shrink = (first.edges[0], first.shrink) if first else (self.recipe.patch, 1)
        self._min_window, self._window = (n * self._shrink for n in (edge, window_edge(self.recipe.augment, edge)))
        self._augment = build_augment(
            self.recipe.augment,
            plan.normalisation.channels,
            plan.dtype,
            edge,
            self.recipe.free_orientation,
            self.recipe.elastic,
        )

    def __getitem__(self, position: int) -> tuple[npt.NDArray[np.float32], Any]:
        image, labels = self.draw(position, lambda sample: sample.labels)
        return image, np.ascontiguousarray(labels)

    def draw(
        self, position: int, labels_of: Callable[[Sample], np.ndarray | None]
    ) -> tuple[npt.NDArray[np.float32], np.ndarray]:
        """Draw the crop at a position.

        Args:
            position: the position in the stream of samples.
            labels_of: returns the labels of a sample, (H, W) or (H, W, n).

        Returns:
            The image (C, P, P), float32 and normalised, and the labels (P, P) or (P, P, n), in their dtype.
        """
        draws = np.random.default_rng((self.plan.seed, position))
        by_class = bool(self._classes) and draws.random() < self.recipe.rare_crops
        class_id = int(draws.choice(self._classes)) if by_class else None
        index = self._shuffled(position) if class_id is None else int(draws.choice(self._images_by_class[class_id]))
        sample = self.reader[index]
        labels = labels_of(sample)
        assert sample.labels is not None and labels is not None
        corner = self._corner(sample.labels, class_id, draws)
        window = cut_window(sample.image, labels, corner, self._window, self._min_window)
        image, labels = downscale(*window, self._shrink)
        image, labels = self._augment(image, labels, int(draws.integers(1 << 62)))
        return normalisation_of(self.plan.normalisation, self.reader, index).apply(image), labels

    def _shuffled(self, position: int) -> int:
        """Return the image at a position: each once per epoch, in an order of that epoch."""
        epoch, index = divmod(position, len(self.reader))
        return int(epoch_order(self.plan.seed, epoch, len(self.reader))[index])

    def _corner(
        self, labels: npt.NDArray[np.uint8], class_id: int | None, draws: np.random.Generator
    ) -> tuple[int, int]:
        """Draw top and left of the window: anywhere, or so that a pixel of the class lies in its middle half."""
        ends = [max(0, size - self._window) for size in labels.shape]
        if class_id is None:
            return int(draws.integers(ends[0] + 1)), int(draws.integers(ends[1] + 1))
        pixels = np.flatnonzero(self.recipe.labelling.where(labels, class_id))
        center = divmod(int(pixels[draws.integers(len(pixels))]), labels.shape[1])
        offsets = draws.integers(self._window // 4, self._window - self._window // 4, 2)
        top, left = (int(np.clip(c - o, 0, end)) for c, o, end in zip(center, offsets, ends, strict=True))
        return top, left


def normalisation_of(planned: Normalisation, reader: Reader, index: int) -> Normalisation:
    """Return the normalisation of all crops of an image.

    Args:
        planned: the plan's normalisation; if it is per image, it is computed from the whole image.
        reader: the training split.
        index: the image.
    """
    return _image_normalisation(planned, cast(Hashable, reader), index) if planned.per_image else planned


@lru_cache(maxsize=CACHE_SIZE)
def _image_normalisation(planned: Normalisation, reader: Hashable, index: int) -> Normalisation:
    return planned.for_image(cast(Reader, reader)[index].image)


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, length: int) -> npt.NDArray[np.int64]:
    """Return the order in which an epoch goes through samples.

    Args:
        seed: the seed of the training.
        epoch: number of the epoch, from 0.
        length: the number of samples.
    """
    return np.random.default_rng((seed, epoch, 1)).permutation(length)


def cut_window(
    image: np.ndarray, labels: np.ndarray, corner: tuple[int, int], window: int, min_edge: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a window out of an image and its labels.

    Args:
        image: (H, W, C).
        labels: (H, W) or (H, W, n).
        corner: top and left of the window.
        window: edge of the window in pixels.
        min_edge: if the result is smaller, it is padded evenly to this edge, with mirrored pixels and ignored labels.
    """
    rows, columns = (slice(start, start + window) for start in corner)
    image, labels = image[rows, columns], labels[rows, columns]
    missing = [max(0, min_edge - size) for size in labels.shape[:2]]
    if any(missing):
        padding = [(n // 2, n - n // 2) for n in missing]
        image = np.pad(image, [*padding, (0, 0)], mode="reflect" if min(labels.shape[:2]) > 1 else "edge")
        labels = np.pad(labels, [*padding, *[(0, 0)] * (labels.ndim - 2)], constant_values=IGNORE)
    return image, labels


def downscale(image: np.ndarray, labels: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Downscale an image by averaging blocks of pixels, and its labels by taking the first of each block.

    Args:
        image: (H, W, C); its dtype is kept.
        labels: (H, W) or (H, W, n).
        factor: edge of a block.
    """
    if factor == 1:
        return image, labels
    height, width = (size // factor * factor for size in labels.shape[:2])
    image, labels = image[:height, :width], labels[:height:factor, :width:factor]
    parts = (image[row::factor, column::factor].astype(np.float32) for row in range(factor) for column in range(factor))
    mean = sum(parts) / np.float32(factor * factor)
    return (mean if image.dtype.kind == "f" else np.rint(mean)).astype(image.dtype), labels


def batches(
    crops: Samples,
    recipe: Recipe,
    workers: int,
    first_step: int = 0,
    last_step: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    pin: bool = False,
) -> Iterator[tuple[torch.Tensor, Any]]:
    """Return the batches of steps `first_step` to `last_step` - 1, in order.

    Args:
        crops: the training samples.
        recipe: the batch size and the number of steps.
        workers: processes that prepare batches.
        first_step: the first step.
        last_step: the step before which to end; None: that of the recipe.
        rank: the number of this process.
        world_size: processes that share each batch; each takes every `world_size`-th sample of it.
        pin: whether to use pinned memory, from which a GPU copies by itself while the process continues.

    Returns:
        An iterator over images (N, C, P, P) float32 and labels (N, P, P) uint8 (or whatever else the crops have).
    """
    from torch.utils.data import DataLoader

    steps = range(first_step, recipe.steps if last_step is None else last_step)
    positions: Sequence[list[int]] = [
        list(range(step * recipe.batch + rank, (step + 1) * recipe.batch, world_size)) for step in steps
    ]
    loader: DataLoader[tuple[torch.Tensor, Any]] = DataLoader(
        crops,  # type: ignore[arg-type]
        batch_sampler=positions,
        num_workers=workers,
        prefetch_factor=_PREFETCHED_BATCHES if workers else None,
        collate_fn=collate_of(crops),
        pin_memory=pin,
        worker_init_fn=_prepare_worker,
    )
    return iter(loader)


def collate_of(crops: Samples) -> Callable[[list[Any]], tuple[torch.Tensor, Any]]:
    """Return the function that makes a batch of crops: their own `collate`, or else one that stacks arrays."""
    from torch.utils.data import default_collate

    return getattr(crops, "collate", default_collate)


def _prepare_worker(_: int) -> None:
    """Make a worker process independent of its parent's Ctrl-C and of what libraries run when the parent ends.

    Ctrl-C reaches every process of a terminal, but only the parent decides when to stop. And a worker is a fork: it
    inherits the functions that libraries of the parent registered for the end of its threads. Those of Prefect, which
    are present where a flow called the training, fail in a fork, and the worker would exit with an error.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    inherited: list[Callable[[], None]] = getattr(threading, "_threading_atexits", [])
    inherited.clear()

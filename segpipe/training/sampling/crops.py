"""Training batches: crops of the shards, each one a function of (seed, position) alone.

Position ``step * batch + place`` says everything about a sample: the image, the place of the crop, each draw of the
augmentation. So the stream is the same for any number of workers, and a run that was killed continues with the sample it would have seen.
"""

from __future__ import annotations

import signal
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

    from segpipe.training.plan import FirstCrops, Plan, Recipe

CACHE_SIZE = 1 << 12
"""Images and classes of which the window or the places are remembered: some numbers each."""
_PATIENCE = 4
"""Batches that each worker prepares ahead."""


class Reader(Protocol):
    """The samples of a split, as `segpipe.data.shards.ShardReader` gives them."""

    @property
    def class_pixels(self) -> npt.NDArray[np.int64]:
        """Pixels of each class in each sample, shape (n, n_classes)."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...


class Samples(Protocol):
    """Training samples by position; what each is follows from (seed, position) alone."""

    def __getitem__(self, position: int) -> tuple[npt.NDArray[np.float32], Any]: ...


class Crops:
    """Training samples by position: ``crops[position] -> (image (C, P, P) float32 normalised, labels (P, P) uint8)``.

    first: what they look like in the first steps of a progressive training, where it is those that are wanted.
    """

    def __init__(self, reader: Reader, plan: Plan, first: FirstCrops | None = None) -> None:
        assert plan.recipe is not None
        self.reader, self.plan, self.recipe = reader, plan, plan.recipe
        present = np.asarray(reader.class_pixels) > 0
        self._holders = [np.flatnonzero(column) for column in present.T]
        self._classes = [index for index, holders in enumerate(self._holders) if len(holders)]
        edge, self._shrink = (first.edges[0], first.shrink) if first else (self.recipe.patch, 1)
        self._seen, self._window = (n * self._shrink for n in (edge, window_edge(self.recipe.augment, edge)))
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
        self, position: int, marks: Callable[[Sample], np.ndarray | None]
    ) -> tuple[npt.NDArray[np.float32], np.ndarray]:
        """The crop at a position: (C, P, P) float32 normalised, and the `marks` (H, W) or (H, W, n) of its sample, (P, P) or
        (P, P, n), in their dtype."""
        draws = np.random.default_rng((self.plan.seed, position))
        rare = bool(self._classes) and draws.random() < self.recipe.rare_crops
        wanted = int(draws.choice(self._classes)) if rare else None
        index = int(draws.choice(self._holders[wanted])) if wanted is not None else self._shuffled(position)
        sample = self.reader[index]
        labels = marks(sample)
        assert sample.labels is not None and labels is not None
        place = self._place(sample.labels, wanted, draws)
        image, labels = downscale(*cut_window(sample.image, labels, place, self._window, self._seen), self._shrink)
        image, labels = self._augment(image, labels, int(draws.integers(1 << 62)))
        return normalisation_of(self.plan.normalisation, self.reader, index).apply(image), labels

    def _shuffled(self, position: int) -> int:
        """Every image once an epoch, in an order of that epoch."""
        epoch, place = divmod(position, len(self.reader))
        return int(epoch_order(self.plan.seed, epoch, len(self.reader))[place])

    def _place(self, labels: npt.NDArray[np.uint8], wanted: int | None, draws: np.random.Generator) -> tuple[int, int]:
        """Top and left of the window: anywhere, or so that a pixel of the wanted class lies in its middle half."""
        ends = [max(0, size - self._window) for size in labels.shape]
        if wanted is None:
            return int(draws.integers(ends[0] + 1)), int(draws.integers(ends[1] + 1))
        pixels = np.flatnonzero(self.recipe.labelling.where(labels, wanted))
        center = divmod(int(pixels[draws.integers(len(pixels))]), labels.shape[1])
        offsets = draws.integers(self._window // 4, self._window - self._window // 4, 2)
        top, left = (int(np.clip(c - o, 0, end)) for c, o, end in zip(center, offsets, ends, strict=True))
        return top, left


def normalisation_of(planned: Normalisation, reader: Reader, index: int) -> Normalisation:
    """What is applied to each crop of an image: what `planned` says of the whole of it."""
    return _of_its_own(planned, cast(Hashable, reader), index) if planned.per_image else planned


@lru_cache(maxsize=CACHE_SIZE)
def _of_its_own(planned: Normalisation, reader: Hashable, index: int) -> Normalisation:
    return planned.of(cast(Reader, reader)[index].image)


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, length: int) -> npt.NDArray[np.int64]:
    """The order in which an epoch goes through `length` samples."""
    return np.random.default_rng((seed, epoch, 1)).permutation(length)


def cut_window(
    image: np.ndarray, labels: np.ndarray, place: tuple[int, int], window: int, patch: int
) -> tuple[np.ndarray, np.ndarray]:
    """A window of an image (H, W, C) and its labels, (H, W) or (H, W, n), padded evenly to at least `patch`: mirrored pixels,
    ignored labels."""
    rows, columns = (slice(start, start + window) for start in place)
    image, labels = image[rows, columns], labels[rows, columns]
    short = [max(0, patch - size) for size in labels.shape[:2]]
    if any(short):
        around = [(s // 2, s - s // 2) for s in short]
        image = np.pad(image, [*around, (0, 0)], mode="reflect" if min(labels.shape[:2]) > 1 else "edge")
        labels = np.pad(labels, [*around, *[(0, 0)] * (labels.ndim - 2)], constant_values=IGNORE)
    return image, labels


def downscale(image: np.ndarray, labels: np.ndarray, by: int) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, C) with the mean of every `by` x `by` pixels in their place, in its dtype, and the label of the first of them."""
    if by == 1:
        return image, labels
    height, width = (size // by * by for size in labels.shape[:2])
    image, labels = image[:height, :width], labels[:height:by, :width:by]
    parts = (image[row::by, column::by].astype(np.float32) for row in range(by) for column in range(by))
    mean = sum(parts) / np.float32(by * by)
    return (mean if image.dtype.kind == "f" else np.rint(mean)).astype(image.dtype), labels


def batches(
    crops: Samples,
    recipe: Recipe,
    workers: int,
    first_step: int = 0,
    last_step: int | None = None,
    rank: int = 0,
    ranks: int = 1,
    pin: bool = False,
) -> Iterator[tuple[torch.Tensor, Any]]:
    """The batches of steps `first_step` .. `last_step` - 1, in order: images (N, C, P, P) float32, labels (N, P, P) uint8 (or
    whatever else the crops come with).

    With several processes, each takes every `ranks`-th sample of a batch. pin: in memory that a GPU fetches from by itself, when it has
    come so far, while the process goes on.
    """
    from torch.utils.data import DataLoader

    steps = range(first_step, recipe.steps if last_step is None else last_step)
    places: Sequence[list[int]] = [list(range(s * recipe.batch + rank, (s + 1) * recipe.batch, ranks)) for s in steps]
    loader: DataLoader[tuple[torch.Tensor, Any]] = DataLoader(
        crops,  # type: ignore[arg-type]
        batch_sampler=places,
        num_workers=workers,
        prefetch_factor=_PATIENCE if workers else None,
        collate_fn=collate_of(crops),
        pin_memory=pin,
        worker_init_fn=_leave_interrupts_to_the_parent,
    )
    return iter(loader)


def collate_of(crops: Samples) -> Callable[[list[Any]], tuple[torch.Tensor, Any]]:
    """What makes a batch of crops: stacked arrays, unless they bring a `collate` of their own."""
    from torch.utils.data import default_collate

    return getattr(crops, "collate", default_collate)


def _leave_interrupts_to_the_parent(_: int) -> None:
    """Ctrl-C reaches every process of a terminal; the parent alone decides when to stop, and its end ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

"""Training crops of volumes, each one a function of (seed, position) alone, as `segpipe.training.sampling.crops.Crops` are.

Cutting, turning, zooming and bringing voxels to the planned size are one affine map and so one interpolation, of just the
part of the volume that the crop sees: no resampled copy is kept, and memory is bounded by the patch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from segpipe.inference.volumes import Axes, ratios
from segpipe.labels import Labelling
from segpipe.samples import IGNORE, Sample
from segpipe.training.plan import FirstCrops, Plan
from segpipe.training.sampling.crops import CACHE_SIZE, Reader, epoch_order, normalisation_of
from segpipe.training.sampling.volume_augmentation import draw_mirror, draw_rotation, vary_intensities

Labels = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]

_PLACES = 512
"""Voxels of a class in a volume that crops are centred near, drawn once."""


class VolumeCrops:
    """Training samples by position: ``crops[position] -> (image (C, *patch) float32 normalised, labels (*patch) uint8)``.

    Beyond the border of a volume, its voxels are mirrored and labelled `IGNORE`. first: as `segpipe.training.sampling.crops.Crops` has it.
    """

    def __init__(self, reader: Reader, plan: Plan, first: FirstCrops | None = None) -> None:
        assert plan.recipe is not None and plan.volume is not None
        self.reader, self.plan, self.recipe, self.grid = reader, plan, plan.recipe, plan.volume
        self._patch, self._shrink = (cast(Axes, first.edges), first.shrink) if first else (self.grid.patch, 1)
        present = np.asarray(reader.class_pixels) > 0
        self._holders = [np.flatnonzero(column) for column in present.T]
        self._classes = [index for index, holders in enumerate(self._holders) if len(holders)]

    def __getitem__(self, position: int) -> tuple[npt.NDArray[np.float32], Labels]:
        image, (labels,) = self.draw(position, lambda sample: [sample.labels])
        return image, labels

    def draw(
        self, position: int, marks: Callable[[Sample], list[Any]]
    ) -> tuple[npt.NDArray[np.float32], list[np.ndarray]]:
        """The crop at a position: (C, *patch) float32 normalised, and the `marks`, each (D, H, W), of its sample, each (*patch), in
        their dtype."""
        draws = np.random.default_rng((self.plan.seed, position))
        rare = bool(self._classes) and draws.random() < self.recipe.rare_crops
        wanted = int(draws.choice(self._classes)) if rare else None
        index = int(draws.choice(self._holders[wanted])) if wanted is not None else self._shuffled(position)
        sample = self.reader[index]
        assert sample.labels is not None
        ratio = self._shrink * ratios(sample.spacing, self.grid.spacing)
        turn = draw_rotation(self.recipe.augment, self.grid.spacing or (1.0, 1.0, 1.0), draws)
        mirror = draw_mirror(self.recipe.augment, self.grid.flips, draws)
        center = self._center(index, sample, wanted, ratio, draws)
        step, (labels, *more) = self._step(ratio, turn, mirror), marks(sample)
        image, found = cut_crop(sample.image, labels, center, step, self._patch)
        others = [cut_crop(sample.image[..., :0], plane, center, step, self._patch)[1] for plane in more]
        normalised = normalisation_of(self.plan.normalisation, self.reader, index).apply(image)
        return vary_intensities(normalised, self.recipe.augment, draws), [
            np.ascontiguousarray(p) for p in (found, *others)
        ]

    def _shuffled(self, position: int) -> int:
        """Every volume once an epoch, in an order of that epoch."""
        epoch, place = divmod(position, len(self.reader))
        return int(epoch_order(self.plan.seed, epoch, len(self.reader))[place])

    def _center(
        self, index: int, sample: Sample, wanted: int | None, ratio: Matrix, draws: np.random.Generator
    ) -> Matrix:
        """Middle of the crop in voxels of the volume: anywhere, or so that a voxel of the wanted class lies in its middle half.

        The crop stays inside the volume; where it is longer than that, the volume inside the crop. So the edges of the crop
        meet labelled voxels, as the windows of inference do at the edges of a volume.
        """
        shape = np.array(sample.image.shape[:3])
        seen = np.array(self._patch) * ratio
        first, last = (seen - 1) / 2, shape - 1 - (seen - 1) / 2
        low, high = np.minimum(first, last), np.maximum(first, last)
        if wanted is None:
            found = draws.uniform(low, high)
        else:
            places = _places(cast(Hashable, self.reader), index, wanted, self.plan.seed, self.recipe.labelling)
            found = places[draws.integers(len(places))] + draws.uniform(-0.25, 0.25, 3) * seen
        return np.asarray(np.clip(found, low, high))

    def _step(self, ratio: Matrix, turn: Matrix | None, mirror: Matrix) -> Matrix:
        """Voxels of the volume for one voxel of the crop, (3, 3)."""
        if turn is not None:  # it is given in mm
            target = np.array(self.grid.spacing or (1.0, 1.0, 1.0))
            turn = turn / target[:, None] * target
        return np.asarray(np.diag(ratio) @ (np.eye(3) if turn is None else turn) @ np.diag(mirror))


def cut_crop(
    image: np.ndarray, labels: Labels, center: Matrix, step: Matrix, patch: tuple[int, int, int]
) -> tuple[np.ndarray, Labels]:
    """The part of a volume (D, H, W, C) and its labels that a patch around `center` sees: (*patch, C) and (*patch,).

    center: in voxels of the volume. step: (3, 3), voxels of the volume by voxel of the patch. Steps of whole voxels along the axes
    copy them (dtype is kept); any other interpolates, the image linearly (float32), the labels by the nearest voxel.
    """
    corner = center - step @ ((np.array(patch) - 1) / 2)
    if np.array_equal(np.abs(step), np.eye(3)):
        return _copied(image, labels, corner, step.diagonal() < 0, patch)
    from scipy.ndimage import affine_transform

    ends = np.array(
        [corner + step @ (np.array(c) * (np.array(patch) - 1)) for c in itertools.product((0, 1), repeat=3)]
    )
    first = np.clip(np.floor(ends.min(0)).astype(int) - 1, 0, np.array(labels.shape) - 1)
    last = np.clip(np.ceil(ends.max(0)).astype(int) + 2, first + 1, labels.shape)
    box = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    offset = corner - first
    out = np.empty((*patch, image.shape[3]), np.float32)
    for channel in range(image.shape[3]):
        part = np.asarray(image[box][..., channel], np.float32)
        affine_transform(part, step, offset, patch, out[..., channel], order=1, mode="mirror")
    found = affine_transform(labels[box], step, offset, patch, order=0, mode="constant", cval=IGNORE)
    return out, found


def _copied(
    image: np.ndarray, labels: Labels, corner: Matrix, mirrored: npt.NDArray[np.bool_], patch: tuple[int, int, int]
) -> tuple[np.ndarray, Labels]:
    """As `crop`, of whole voxels, mirrored along some axes."""
    edges = np.array(patch)
    start = np.rint(np.where(mirrored, corner - edges + 1, corner)).astype(int)
    around = [(max(0, -int(a)), max(0, int(a + e - n))) for a, e, n in zip(start, edges, labels.shape, strict=True)]
    box = tuple(slice(max(0, int(a)), int(a + e)) for a, e in zip(start, edges, strict=True))
    image, labels = image[box], labels[box]
    if any(map(any, around)):
        image = np.pad(image, [*around, (0, 0)], mode="reflect" if min(labels.shape) > 1 else "edge")
        labels = np.pad(labels, around, constant_values=IGNORE)
    axes = tuple(np.flatnonzero(mirrored).tolist())
    return np.flip(image, axes), np.flip(labels, axes)


@lru_cache(maxsize=CACHE_SIZE)
def _places(reader: Hashable, index: int, wanted: int, seed: int, labelling: Labelling) -> Matrix:
    """Some voxels of a class in a volume, (n, 3), at most `_PLACES`."""
    labels = cast(Reader, reader)[index].labels
    assert labels is not None
    flat = np.flatnonzero(labelling.where(labels, wanted))
    if len(flat) > _PLACES:
        flat = np.random.default_rng((seed, index, wanted, 2)).choice(flat, _PLACES, replace=False)
    return np.stack(np.unravel_index(flat, labels.shape), 1).astype(np.float64)

"""Training crops of volumes, each one a function of (seed, position) alone, as for `segpipe.training.sampling.crops.Crops`.

Cutting, rotating, zooming and resampling to the planned voxel size are one affine map and therefore one interpolation, of only the
part of the volume that the crop sees: no resampled copy is stored, and memory is bounded by the patch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from segpipe.inference.volumes import Axes, spacing_ratios
from segpipe.labels import Labelling
from segpipe.samples import IGNORE, Sample
from segpipe.training.plan import FirstCrops, RecipePlan
from segpipe.training.sampling.crops import CACHE_SIZE, Reader, epoch_order, normalisation_of
from segpipe.training.sampling.volume_augmentation import draw_mirror, draw_rotation, vary_intensities

Labels = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]

_MAX_CENTERS = 512
"""Voxels of a class in a volume near which crops are centred, drawn once."""


class VolumeCrops:
    """Training samples by position: ``crops[position] -> (image (C, *patch) float32 normalised, labels (*patch) uint8)``.

    Beyond the border of a volume, its voxels are mirrored and labelled `IGNORE`.

    Args:
        reader: the training split.
        plan: the plan of the training.
        first: the crops of the first steps of a progressive training; None: full crops.
    """

    def __init__(self, reader: Reader, plan: RecipePlan, first: FirstCrops | None = None) -> None:
        assert plan.volume is not None
        self.reader, self.plan, self.recipe, self.grid = reader, plan, plan.recipe, plan.volume
        self._patch, self._shrink = (cast(Axes, first.edges), first.shrink) if first else (self.grid.patch, 1)
        present = np.asarray(reader.class_pixels) > 0
        self._volumes_by_class = [np.flatnonzero(column) for column in present.T]
        self._classes = [class_id for class_id, volumes in enumerate(self._volumes_by_class) if len(volumes)]

    def __getitem__(self, position: int) -> tuple[npt.NDArray[np.float32], Labels]:
        image, (labels,) = self.draw(position, lambda sample: [sample.labels])
        return image, labels

    def draw(
        self, position: int, planes_of: Callable[[Sample], list[Any]]
    ) -> tuple[npt.NDArray[np.float32], list[np.ndarray]]:
        """Draw the crop at a position.

        Args:
            position: the position in the stream of samples.
            planes_of: returns label planes of a sample, each (D, H, W).

        Returns:
            The image (C, *patch), float32 and normalised, and the planes, each (*patch), in their dtype.
        """
        draws = np.random.default_rng((self.plan.seed, position))
        by_class = bool(self._classes) and draws.random() < self.recipe.rare_crops
        class_id = int(draws.choice(self._classes)) if by_class else None
        index = self._shuffled(position) if class_id is None else int(draws.choice(self._volumes_by_class[class_id]))
        sample = self.reader[index]
        assert sample.labels is not None
        ratio = self._shrink * spacing_ratios(sample.spacing, self.grid.spacing)
        rotation = draw_rotation(self.recipe.augment, self.grid.spacing or (1.0, 1.0, 1.0), draws)
        mirror = draw_mirror(self.recipe.augment, self.grid.flips, draws)
        center = self._center(index, sample, class_id, ratio, draws)
        step, (first, *others) = self._step(ratio, rotation, mirror), planes_of(sample)
        image, first_crop = cut_crop(sample.image, first, center, step, self._patch)
        other_crops = [cut_crop(sample.image[..., :0], plane, center, step, self._patch)[1] for plane in others]
        normalised = normalisation_of(self.plan.normalisation, self.reader, index).apply(image)
        varied = vary_intensities(normalised, self.recipe.augment, draws)
        return varied, [np.ascontiguousarray(plane) for plane in (first_crop, *other_crops)]

    def _shuffled(self, position: int) -> int:
        """Return the volume at a position: each once per epoch, in an order of that epoch."""
        epoch, index = divmod(position, len(self.reader))
        return int(epoch_order(self.plan.seed, epoch, len(self.reader))[index])

    def _center(
        self, index: int, sample: Sample, class_id: int | None, ratio: Matrix, draws: np.random.Generator
    ) -> Matrix:
        """Draw the centre of the crop in voxels of the volume: anywhere, or so that a voxel of the class lies in its middle half.

        The crop stays inside the volume; along an axis on which it is longer, the volume stays inside the crop. So the edges of the
        crop meet labelled voxels, as the windows of inference do at the edges of a volume.
        """
        shape = np.array(sample.image.shape[:3])
        extent = np.array(self._patch) * ratio
        first, last = (extent - 1) / 2, shape - 1 - (extent - 1) / 2
        low, high = np.minimum(first, last), np.maximum(first, last)
        if class_id is None:
            center = draws.uniform(low, high)
        else:
            voxels = _class_voxels(cast(Hashable, self.reader), index, class_id, self.plan.seed, self.recipe.labelling)
            center = voxels[draws.integers(len(voxels))] + draws.uniform(-0.25, 0.25, 3) * extent
        return np.asarray(np.clip(center, low, high))

    def _step(self, ratio: Matrix, rotation: Matrix | None, mirror: Matrix) -> Matrix:
        """Return the voxels of the volume per voxel of the crop, (3, 3)."""
        if rotation is not None:  # from mm to voxels
            target = np.array(self.grid.spacing or (1.0, 1.0, 1.0))
            rotation = rotation / target[:, None] * target
        return np.asarray(np.diag(ratio) @ (np.eye(3) if rotation is None else rotation) @ np.diag(mirror))


def cut_crop(
    image: np.ndarray, labels: Labels, center: Matrix, step: Matrix, patch: tuple[int, int, int]
) -> tuple[np.ndarray, Labels]:
    """Cut the part of a volume and its labels that a patch sees.

    Steps of whole voxels along the axes copy voxels, and the dtype is kept. All others interpolate: the image linearly (float32),
    the labels by the nearest voxel.

    Args:
        image: (D, H, W, C).
        labels: (D, H, W).
        center: centre of the patch in voxels of the volume, (3,).
        step: voxels of the volume per voxel of the patch, (3, 3).
        patch: shape of the result.

    Returns:
        The image (*patch, C) and the labels (*patch,).
    """
    corner = center - step @ ((np.array(patch) - 1) / 2)
    if np.array_equal(np.abs(step), np.eye(3)):
        return _copy_voxels(image, labels, corner, step.diagonal() < 0, patch)
    from scipy.ndimage import affine_transform

    corners = np.array(
        [corner + step @ (np.array(c) * (np.array(patch) - 1)) for c in itertools.product((0, 1), repeat=3)]
    )
    first = np.clip(np.floor(corners.min(0)).astype(int) - 1, 0, np.array(labels.shape) - 1)
    last = np.clip(np.ceil(corners.max(0)).astype(int) + 2, first + 1, labels.shape)
    box = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    offset = corner - first
    out = np.empty((*patch, image.shape[3]), np.float32)
    for channel in range(image.shape[3]):
        part = np.asarray(image[box][..., channel], np.float32)
        affine_transform(part, step, offset, patch, out[..., channel], order=1, mode="mirror")
    out_labels = affine_transform(labels[box], step, offset, patch, order=0, mode="constant", cval=IGNORE)
    return out, out_labels


def _copy_voxels(
    image: np.ndarray, labels: Labels, corner: Matrix, mirrored: npt.NDArray[np.bool_], patch: tuple[int, int, int]
) -> tuple[np.ndarray, Labels]:
    """Cut a crop of whole voxels, mirrored along some axes."""
    edges = np.array(patch)
    start = np.rint(np.where(mirrored, corner - edges + 1, corner)).astype(int)
    padding = [(max(0, -int(a)), max(0, int(a + e - n))) for a, e, n in zip(start, edges, labels.shape, strict=True)]
    box = tuple(slice(max(0, int(a)), int(a + e)) for a, e in zip(start, edges, strict=True))
    image, labels = image[box], labels[box]
    if any(map(any, padding)):
        image = np.pad(image, [*padding, (0, 0)], mode="reflect" if min(labels.shape) > 1 else "edge")
        labels = np.pad(labels, padding, constant_values=IGNORE)
    axes = tuple(np.flatnonzero(mirrored).tolist())
    return np.flip(image, axes), np.flip(labels, axes)


@lru_cache(maxsize=CACHE_SIZE)
def _class_voxels(reader: Hashable, index: int, class_id: int, seed: int, labelling: Labelling) -> Matrix:
    """Return some voxels of a class in a volume, (n, 3), at most `_MAX_CENTERS`."""
    labels = cast(Reader, reader)[index].labels
    assert labels is not None
    flat = np.flatnonzero(labelling.where(labels, class_id))
    if len(flat) > _MAX_CENTERS:
        flat = np.random.default_rng((seed, index, class_id, 2)).choice(flat, _MAX_CENTERS, replace=False)
    return np.stack(np.unravel_index(flat, labels.shape), 1).astype(np.float64)

"""The recipe of a network for volumes: voxel size, patch and mirroring, chosen from settings and data, with reasons.

The rules are those of nnU-Net (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z), with limits for machines without a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from segpipe.errors import ConfigError
from segpipe.inference.volumes import Axes, resampled_shape, spacing_ratios
from segpipe.labels import Labelling
from segpipe.training.plan import Recipe, VolumeGrid
from segpipe.training.planning.label_statistics import choose_class_weights
from segpipe.training.planning.normalisation import spread_samples
from segpipe.training.planning.recipe import build_recipe, check_batch
from segpipe.training.sampling.volume_augmentation import THICK_SLICE_RATIO

if TYPE_CHECKING:
    from segpipe.training.planning.plan_draft import PlanDraft
    from segpipe.training.sampling.crops import Reader

MAX_PATCH_VOXELS = {"cpu": 1 << 18, "cuda": 1 << 21}
"""The largest patch of a network: 64 or 128 voxels cubed. It limits memory and, on a CPU, the time of a step."""
MAX_CLASSICAL_VOXELS = 1 << 21
"""The largest patch of a classical model."""
_MIN_BATCH, _MAX_BATCH = 2, 8
_BATCH_VOXELS = {"cpu": 1 << 18, "cuda": 1 << 22}
_MIN_DEEPEST_VOXELS = 8
"""Voxels of the deepest level over which a network can still normalise."""
_ORIENTATION_VOLUMES = 64
_MAX_MIRROR_DIFFERENCE = 0.2
"""Crops are mirrored along an axis if `end_differences` is below this."""
_AXIS_NAMES = ("depth", "height", "width")
Spacing = tuple[float, float, float]


def choose_spacing(draft: PlanDraft, preset: Spacing | None) -> Spacing | None:
    """Choose the voxel size in mm to which volumes are resampled: the median of the training volumes along each axis.

    If slices are thick, it is the tenth percentile along the thick axis, so that finer volumes lose less.

    Args:
        draft: the plan so far; the reason is recorded in it.
        preset: the voxel size that was set, or that of the release that training continues from.

    Returns:
        The voxel size; None if neither setting nor files state one.
    """
    stated = [sample.spacing for sample in spread_samples(draft.train) if sample.spacing is not None]
    if preset is not None or not stated:
        draft.explain("voxel size", "as set" if preset else "the files do not state one: voxels are used as they are")
        return preset
    sizes = np.array(stated, np.float64)
    chosen = np.median(sizes, axis=0)
    thick_axis = int(chosen.argmax())
    reason = "the median of the training volumes"
    if chosen[thick_axis] > THICK_SLICE_RATIO * chosen.min():
        others = np.delete(chosen, thick_axis)
        chosen[thick_axis] = max(float(np.percentile(sizes[:, thick_axis], 10)), float(others.max()))
        reason += f"; slices are thick along the {_AXIS_NAMES[thick_axis]}, where it is the tenth percentile"
    same = int(np.all(np.abs(sizes / chosen - 1) < 0.01, axis=1).sum())
    draft.explain(
        "voxel size",
        f"{_by(chosen)} mm: {reason}; {len(sizes) - same} of {len(sizes)} are resampled to it, the others already have it",
    )
    depth, height, width = (round(float(size), 6) for size in chosen)
    return depth, height, width


def choose_patch3d(train: Reader, spacing: Spacing | None, multiples: Axes, max_voxels: int) -> tuple[Axes, Axes]:
    """Choose the patch for the typical training volume.

    The patch is the median shape, rounded up to `multiples`, then reduced along the axis on which it sees the largest share of
    the volume, until it has at most `max_voxels`. The deepest level of the network keeps at least 8 voxels.

    Args:
        train: the training volumes.
        spacing: the voxel size in mm to which they are resampled; None: they are not.
        multiples: along each axis, the patch is a multiple of this.
        max_voxels: the largest patch.

    Returns:
        The patch, and the median shape of the volumes at this voxel size, both (D, H, W) in voxels.
    """
    shapes = np.array(
        [resampled_shape(s.image.shape[:3], spacing_ratios(s.spacing, spacing)) for s in spread_samples(train)]
    )
    median = [float(edge) for edge in np.median(shapes, axis=0)]
    patch = [max(1, math.ceil(edge / step)) * step for edge, step in zip(median, multiples, strict=True)]
    while math.prod(patch) > max_voxels:
        shares = [
            edge / median_edge if edge > step else 0.0
            for edge, median_edge, step in zip(patch, median, multiples, strict=True)
        ]
        if not any(shares):
            break
        axis = shares.index(max(shares))
        patch[axis] -= multiples[axis]
    if math.prod(edge // step for edge, step in zip(patch, multiples, strict=True)) < _MIN_DEEPEST_VOXELS:
        patch = [max(edge, 2 * step) for edge, step in zip(patch, multiples, strict=True)]
    return _axes(patch), _axes([round(edge) for edge in median])


def choose_grid(draft: PlanDraft, multiples: Axes, spacing: Spacing | None, device: str) -> VolumeGrid:
    """Choose the patch of a network and the axes along which its crops are mirrored.

    Args:
        draft: the plan so far; reasons are recorded in it.
        multiples: along each axis, the patch is a multiple of this.
        spacing: the voxel size in mm to which volumes are resampled; None: they are not.
        device: "cpu" or "cuda".
    """
    settings = draft.settings
    usual, median = choose_patch3d(draft.train, spacing, multiples, MAX_PATCH_VOXELS[device])
    patch = usual
    if preset := settings.patch3d or (settings.patch and (settings.patch,) * 3):
        patch = _axes([math.ceil(edge / step) * step for edge, step in zip(preset, multiples, strict=True)])
    origin = "as set" if patch != usual else f"volumes are typically {_by(median)}"
    draft.explain("patch", f"{_by(patch)} voxels (depth x height x width): {origin}; in multiples of {_by(multiples)}")
    differences = end_differences(draft.train, draft.fingerprint.classes.labelling)
    if settings.flips == "auto":
        flips = [difference < _MAX_MIRROR_DIFFERENCE for difference in differences]
    else:
        flips = [axis in settings.flips for axis in _AXIS_NAMES]
    listed = ", ".join(f"{axis} {difference:.0%}" for axis, difference in zip(_AXIS_NAMES, differences, strict=True))
    mirrored = " and ".join(axis for axis, flip in zip(_AXIS_NAMES, flips, strict=True) if flip) or "no axis"
    reason = (
        f"the two ends of an axis are alike if their classes differ by less than {_MAX_MIRROR_DIFFERENCE:.0%} ({listed})"
        if settings.flips == "auto"
        else "as set"
    )
    draft.explain("mirroring", f"along {mirrored}: {reason}")
    return VolumeGrid(patch=patch, spacing=spacing, flips=(flips[0], flips[1], flips[2]))


def choose_volume_recipe(draft: PlanDraft, grid: VolumeGrid, device: str) -> Recipe:
    """Choose the recipe of a network for volumes: as for images where their rules apply, with a batch that fits the patch.

    Args:
        draft: the plan so far; reasons are recorded in it.
        grid: the patch of the network.
        device: "cpu" or "cuda".

    Returns:
        The recipe, with placeholders for everything that is counted in steps.

    Raises:
        ConfigError: A setting does not fit the family or volumes.
    """
    settings = draft.settings
    if settings.elastic:
        raise ConfigError(
            "crops of volumes are rotated and zoomed, but not deformed elastically",
            where="train.elastic",
            found=True,
            expected="false",
        )
    voxels = math.prod(grid.patch)
    fitting = min(_MAX_BATCH, _BATCH_VOXELS[device] // voxels)
    batch = settings.batch or max(_MIN_BATCH, draft.family.min_batch, fitting)
    check_batch(draft, batch)
    class_weights = choose_class_weights(draft)
    draft.explain("batch", "as set" if settings.batch else f"{batch}: {voxels * batch:,} voxels per step")
    longest_edge = -(-max(grid.patch) // 32) * 32
    recipe = build_recipe(draft, longest_edge, batch, class_weights, free_orientation=False)
    draft.explain(
        "sampling",
        f"{settings.rare_crops:.0%} of the crops are placed around a voxel of a class drawn at random, the others anywhere",
    )
    return recipe


def end_differences(train: Reader, labelling: Labelling | None = None) -> tuple[float, float, float]:
    """Compute how differently classes fill the two halves of up to 64 volumes along each axis.

    The most frequent class is left out, because background is everywhere. Pixels are summed over volumes, so that left and right
    sides in equal numbers count as alike.

    Args:
        train: the training volumes.
        labelling: the meaning of labels; None: class ids.

    Returns:
        For (depth, height, width): 0 (alike) to 1.
    """
    labelling = labelling or Labelling(train.class_pixels.shape[1])
    counts = np.zeros((3, 2, labelling.n_classes))
    for sample in spread_samples(train, _ORIENTATION_VOLUMES):
        assert sample.labels is not None
        for axis in range(3):
            slices, half = np.moveaxis(sample.labels, axis, 0), sample.labels.shape[axis] // 2
            for end, part in enumerate((slices[:half], slices[len(slices) - half :])):
                counts[axis, end] += labelling.count_pixels(part)
    counts = np.delete(counts, int(counts.sum((0, 1)).argmax()), axis=2)
    totals = counts.sum((1, 2))
    distances = np.abs(counts[:, 0] - counts[:, 1]).sum(1)
    depth, height, width = (
        float(distance / total) if total else 0.0 for distance, total in zip(distances, totals, strict=True)
    )
    return depth, height, width


def _axes(values: Sequence[int] | np.ndarray) -> Axes:
    depth, height, width = (int(value) for value in values)
    return depth, height, width


def _by(values: Sequence[float] | np.ndarray) -> str:
    return " x ".join(f"{value:g}" for value in values)

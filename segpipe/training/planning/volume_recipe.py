"""What a plan chooses for volumes: voxel size, patch, mirroring. Each choice says why.

The rules are those of nnU-Net (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z), with bounds for a machine without a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from segpipe.errors import ConfigError
from segpipe.inference.volumes import Axes, ratios, resampled_shape
from segpipe.labels import Labelling
from segpipe.training.plan import Recipe, VolumeGrid
from segpipe.training.planning.normalisation import spread_samples
from segpipe.training.planning.recipe import choose_recipe
from segpipe.training.sampling.volume_augmentation import THICK_SLICE_RATIO

if TYPE_CHECKING:
    from segpipe.config import TrainParams
    from segpipe.data.manifest.fingerprint import Fingerprint
    from segpipe.models.registry import Family
    from segpipe.training.sampling.crops import Reader

PATCH_VOXELS = {"cpu": 1 << 18, "cuda": 1 << 21}
"""The most that a network sees at once: 64 or 128 voxels cubed. It bounds memory, and on a processor the time of a step."""
CLASSICAL_VOXELS = 1 << 21
"""What a baseline looks at once."""
BATCH = 2
_BATCH_VOXELS = {"cpu": 1 << 18, "cuda": 1 << 22}
_MOST_BATCH = 8
_DEEPEST = 8
"""Voxels over which a network can still normalise."""
_LOOKED_AT = 64
_ALIKE = 0.2
_AXES = ("depth", "height", "width")
Spacing = tuple[float, float, float]


def choose_spacing(train: Reader, wanted: Spacing | None, reasons: dict[str, str]) -> Spacing | None:
    """The voxel size to work at: the median of the training volumes by axis. Where that is thick slices, the tenth percentile
    along the thick axis, so that the finer volumes lose less."""
    found = [sample.spacing for sample in spread_samples(train) if sample.spacing is not None]
    if wanted is not None or not found:
        reasons["voxel size"] = "as set" if wanted else "the files tell none: voxels are taken as they come"
        return wanted
    sizes = np.array(found, np.float64)
    chosen = np.median(sizes, axis=0)
    axis = int(chosen.argmax())
    why = "the median of the training volumes"
    if chosen[axis] > THICK_SLICE_RATIO * chosen.min():
        others = np.delete(chosen, axis)
        chosen[axis] = max(float(np.percentile(sizes[:, axis], 10)), float(others.max()))
        why += f"; slices are thick along the {_AXES[axis]}, where it is the tenth percentile"
    same = int(np.all(np.abs(sizes / chosen - 1) < 0.01, axis=1).sum())
    reasons["voxel size"] = (
        f"{_words(chosen)} mm: {why}; {len(sizes) - same} of {len(sizes)} are brought to it, the others have it"
    )
    depth, height, width = (round(float(size), 6) for size in chosen)
    return depth, height, width


def choose_patch3d(train: Reader, spacing: Spacing | None, steps: Axes, voxels: int) -> tuple[Axes, Axes]:
    """The patch, and the median shape of the training volumes at this voxel size.

    The patch is that shape, rounded up to multiples of `steps`, then cut along the axis on which it sees the largest share of
    the volume, until it has no more than `voxels`. The deepest level of the network keeps at least `_DEEPEST` voxels.
    """
    shapes = np.array([resampled_shape(s.image.shape[:3], ratios(s.spacing, spacing)) for s in spread_samples(train)])
    median = [float(edge) for edge in np.median(shapes, axis=0)]
    patch = [max(1, math.ceil(edge / step)) * step for edge, step in zip(median, steps, strict=True)]
    while math.prod(patch) > voxels:
        shares = [p / edge if p > step else 0.0 for p, edge, step in zip(patch, median, steps, strict=True)]
        if not any(shares):
            break
        axis = shares.index(max(shares))
        patch[axis] -= steps[axis]
    if math.prod(p // step for p, step in zip(patch, steps, strict=True)) < _DEEPEST:
        patch = [max(p, 2 * step) for p, step in zip(patch, steps, strict=True)]
    return _axes(patch), _axes([round(edge) for edge in median])


def choose_grid(
    wanted: TrainParams,
    steps: Axes,
    train: Reader,
    spacing: Spacing | None,
    device: str,
    reasons: dict[str, str],
    labelling: Labelling | None = None,
) -> VolumeGrid:
    """How the network looks at the volumes of this dataset. steps: patches are multiples of this along each axis."""
    found, median = choose_patch3d(train, spacing, steps, PATCH_VOXELS[device])
    patch = found
    if wanted.patch3d is not None or wanted.patch is not None:
        asked = wanted.patch3d or (wanted.patch,) * 3  # type: ignore[assignment]
        patch = _axes([math.ceil(edge / step) * step for edge, step in zip(asked, steps, strict=True)])  # type: ignore[operator, arg-type]
    reasons["patch"] = (
        f"{_words(patch)} voxels (depth x height x width), "
        + ("as set, in multiples" if patch != found else f"of volumes of {_words(median)} (typically), in multiples")
        + f" of {_words(steps)}"
    )
    differences = end_differences(train, labelling)
    if wanted.flips == "auto":
        flips = tuple(difference < _ALIKE for difference in differences)
    else:
        flips = tuple(axis in wanted.flips for axis in _AXES)
    told = ", ".join(f"{axis} {difference:.0%}" for axis, difference in zip(_AXES, differences, strict=True))
    named = " and ".join(axis for axis, flip in zip(_AXES, flips, strict=True) if flip) or "no axis"
    reasons["mirroring"] = f"along {named}" + (
        f": so far do classes differ between the two ends ({told}); below {_ALIKE:.0%} they are alike"
        if wanted.flips == "auto"
        else ", as set"
    )
    return VolumeGrid(patch=patch, spacing=spacing, flips=flips)  # type: ignore[arg-type]


def choose_volume_recipe(
    wanted: TrainParams,
    of: Family,
    grid: VolumeGrid,
    fingerprint: Fingerprint,
    train: Reader,
    device: str,
    reasons: dict[str, str],
) -> Recipe:
    """`choose_recipe` for volumes: the rules of images where they hold, and a batch that fits the patch."""
    if wanted.elastic:
        raise ConfigError(
            "crops of volumes are turned and zoomed, not bent",
            where="train.elastic",
            found=True,
            expected="false",
        )
    voxels = math.prod(grid.patch)
    batch = wanted.batch or max(BATCH, of.least_batch, min(_MOST_BATCH, _BATCH_VOXELS[device] // voxels))
    edge = -(-max(grid.patch) // 32) * 32
    own: dict[str, str] = {}
    recipe = choose_recipe(wanted.model_copy(update={"batch": batch, "patch": edge}), of, fingerprint, train, own)
    del own["patch"], own["orientation"]
    own["batch"] = "as set" if wanted.batch else f"{batch}: {voxels * batch:,} voxels a step"
    share = wanted.rare_crops
    own["sampling"] = f"{share:.0%} of the crops lie around a voxel of a class drawn at random, the others anywhere"
    reasons.update(own)
    return recipe.model_copy(update={"free_orientation": False})


def end_differences(train: Reader, labelling: Labelling | None = None) -> tuple[float, float, float]:
    """How differently classes fill the two halves of the volumes along each axis: 0 (alike) .. 1.

    The most frequent class is left out: background is everywhere. Summed over volumes, so that left and right sides in equal
    numbers count as alike. Looks at up to 64 volumes.
    """
    labelling = labelling or Labelling(train.class_pixels.shape[1])
    ends = np.zeros((3, 2, labelling.n_classes))
    for sample in spread_samples(train, _LOOKED_AT):
        assert sample.labels is not None
        for axis in range(3):
            line, half = np.moveaxis(sample.labels, axis, 0), sample.labels.shape[axis] // 2
            for end, part in enumerate((line[:half], line[len(line) - half :])):
                ends[axis, end] += labelling.pixels(part)
    ends = np.delete(ends, int(ends.sum((0, 1)).argmax()), axis=2)
    total = ends.sum((1, 2))
    apart = np.abs(ends[:, 0] - ends[:, 1]).sum(1)
    depth, height, width = (float(a / t) if t else 0.0 for a, t in zip(apart, total, strict=True))
    return depth, height, width


def _axes(values: Sequence[int] | np.ndarray) -> Axes:
    depth, height, width = (int(value) for value in values)
    return depth, height, width


def _words(values: Sequence[float] | np.ndarray) -> str:
    return " x ".join(f"{value:g}" for value in values)

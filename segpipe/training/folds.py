"""Cross-validation: the images of train and val in folds.

Each of K members is trained without one fold, and its checkpoint is chosen on that fold. The test split is in no fold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segpipe.data.splits import FOLDS_FILE, balanced_folds, folds_within_gap
from segpipe.errors import ConfigError
from segpipe.files import read_json
from segpipe.models.weights.released_weights import parse_release
from segpipe.training.plan import Folds

if TYPE_CHECKING:
    from segpipe.config import Candidate, Params, TrainParams
    from segpipe.data.shards import ShardReader
    from segpipe.models.registry import Family
    from segpipe.samples import Sample
    from segpipe.training.plan import NetworkPlan
    from segpipe.training.sampling.crops import Reader

_HASHED_PIXELS = 1 << 12
"""Pixels of an image whose hash identifies it."""
_SEEDS_PER_CANDIDATE = 100
"""Distance between the seeds of candidates; it is larger than the number of members."""


class SampleSubset:
    """Some samples of several readers, as one reader.

    Args:
        readers: the readers.
        indices: the samples, counted through all readers.
    """

    def __init__(self, readers: Sequence[Reader], indices: Sequence[int]) -> None:
        self.readers, self.indices = readers, indices
        self._starts = np.cumsum([0, *map(len, readers)])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Sample:
        index = self.indices[position]
        reader = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self.readers[reader][index - int(self._starts[reader])]

    @cached_property
    def class_pixels(self) -> npt.NDArray[np.int64]:
        """Pixels of each class in each sample, shape (n, n_classes)."""
        return np.concatenate([reader.class_pixels for reader in self.readers])[list(self.indices)]


def spread_evenly(reader: Reader, count: int | None) -> Reader:
    """Return this many samples of a reader, evenly spread. count: None for all."""
    if count is None or count >= len(reader):
        return reader
    return SampleSubset([reader], np.linspace(0, len(reader) - 1, count).astype(int).tolist())


@dataclass(frozen=True)
class FoldImages:
    """The images of train and val with the fold of each."""

    readers: tuple[ShardReader, ...]
    keys: list[str]
    fold_numbers: list[int]
    near_folds: Sequence[frozenset[int]] = ()
    """For each image, the other folds with an image too similar to it; empty: there are none."""

    def without_fold(self, fold: int) -> SampleSubset:
        """Return the images that train the member without this fold."""
        near_folds = self.near_folds or [frozenset[int]()] * len(self.fold_numbers)
        indices = [i for i, number in enumerate(self.fold_numbers) if number != fold and fold not in near_folds[i]]
        return SampleSubset(self.readers, indices)

    def only_fold(self, fold: int) -> SampleSubset:
        """Return the images of this fold, which its member never sees."""
        return SampleSubset(self.readers, [i for i, number in enumerate(self.fold_numbers) if number == fold])

    @property
    def fold_by_key(self) -> dict[str, int]:
        """The fold of each image."""
        return dict(zip(self.keys, self.fold_numbers, strict=True))


def make_folds(folds: Folds, seed: int, train: ShardReader, val: ShardReader, shards: Path) -> FoldImages:
    """Divide the images of train and val into folds; the same arguments give the same folds.

    Args:
        folds: the number of folds, and how images are assigned to them.
        seed: the seed of the training.
        train: the training split.
        val: the validation split.
        shards: the folder of the splits, with `FOLDS_FILE` if `split.folds` is set.

    Raises:
        ConfigError: The gap leaves a member nothing to be trained on.
    """
    readers = train, val
    keys = [key for reader in readers for key in reader.keys]
    fold_by_key = read_json(shards / FOLDS_FILE) if folds.dealt == "split" else None
    if fold_by_key is not None and not folds.gap:
        return FoldImages(readers, keys, [fold_by_key[key] for key in keys])
    rows = [_manifest_row(reader, index) for reader in readers for index in range(len(reader))]
    fold_numbers = (
        [fold_by_key[key] for key in keys]
        if fold_by_key
        else balanced_folds(rows, folds.count, seed, folds.dealt == "blocks")
    )
    near = folds_within_gap(rows, fold_numbers, folds.gap) if folds.gap else ()
    fold_images = FoldImages(readers, keys, fold_numbers, near)
    if empty := [fold for fold in range(folds.count) if not len(fold_images.without_fold(fold))]:
        raise ConfigError(
            f"the gap leaves no images to train on without fold {empty[0]}",
            where="split.gap",
            found=folds.gap,
            fix="reduce it, or train.folds",
        )
    return fold_images


def choose_folds(count: int, params: Params, shards: Path) -> Folds:
    """Choose how images are assigned to folds: as `split.folds` did, otherwise by the method of the splits.

    Args:
        count: the number of folds.
        params: params.yaml.
        shards: the folder of the splits, with `FOLDS_FILE` if `split.folds` is set.

    Raises:
        ConfigError: `split.folds` is another number, or leaves a fold empty.
    """
    path, gap = shards / FOLDS_FILE, params.split.gap
    if not path.exists():
        return Folds(count=count, dealt="blocks" if params.split.method == "ranges" else "groups", gap=gap)
    numbers = set(read_json(path).values())
    if numbers != set(range(count)):
        raise ConfigError(
            "split.folds assigns the images of train and val differently",
            where="train.folds",
            found=f"{count}, and folds {sorted(numbers)}",
            fix="set both to the same number, or split.folds to null; use fewer if a fold is empty",
        )
    return Folds(count=count, dealt="split", gap=gap)


def check_folds(candidate: Candidate, model_family: Family) -> None:
    """Raise ConfigError if members could not be averaged, or could not be judged on images that are new to them."""
    fix = "remove `folds`, or set `train: {folds: null}` under the candidate"
    if model_family.kind == "detector":
        raise ConfigError(
            f"the instances that several {model_family.name} find cannot be averaged", where="train.folds", fix=fix
        )
    source = str(candidate.options.get("encoder_weights", ""))
    if parse_release(source):
        raise ConfigError(
            "a release has learned from the images of all folds, so no member could be judged by the fold that it leaves out",
            where="train.folds",
            found=f"encoder_weights: {source}",
            fix=f"{fix}, or set encoder_weights: auto",
        )


def describe_folds(folds: Folds, fold_images: FoldImages, settings: TrainParams) -> str:
    """Describe the folds in words, for `segpipe plan C --explain`."""
    method = {
        "split": "as assigned by split.folds",
        "groups": "groups whole, rare classes in each",
        "blocks": "in blocks of each stack",
    }[folds.dealt]
    sizes = sorted({fold_images.fold_numbers.count(fold) for fold in range(folds.count)})
    images = f"{sizes[0]} to {sizes[-1]} images" if len(sizes) > 1 else f"{sizes[0]} images"
    gap = f" and without the {folds.gap} images on either side of its blocks" if folds.gap else ""
    return (
        f"{folds.count} members, each trained without one fold of train and val ({images}, {method}){gap}, on which its checkpoint is "
        f"chosen; they share the budget of {settings.budget}; the model is the mean of their outputs, and on val each image is judged "
        "by the member that has not seen it"
    )


def member_plan(plan: NetworkPlan, fold: int) -> NetworkPlan:
    """Return the plan of the member without a fold: it has its own seed, and nothing is chosen for its finished model."""
    recipe = plan.recipe.model_copy(update={"cleaning": "none", "tta": "none"})
    seed = plan.seed * _SEEDS_PER_CANDIDATE + fold
    return plan.model_copy(update={"recipe": recipe, "postprocess": None, "folds": None, "seed": seed})


def _manifest_row(reader: ShardReader, index: int) -> dict[str, Any]:
    """Return what the manifest's row of a sample would hold.

    The content is identified by some of its pixels, so that copies stay in one fold, as groups do.
    """
    sample, counts = reader[index], reader.class_pixels[index].tolist()
    pixels = sample.image.reshape(-1)
    some_pixels = np.ascontiguousarray(pixels[:: max(1, len(pixels) // _HASHED_PIXELS)])
    content = hashlib.sha256(f"{sample.image.shape}".encode() + some_pixels.tobytes()).hexdigest()
    return {"key": sample.key, "group": sample.group, "sha256": content, "class_pixels": counts}

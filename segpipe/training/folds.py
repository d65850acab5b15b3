"""Cross-validation: the images of train and val in folds. Each of K members is trained without one fold, by which its checkpoint is
chosen. The test split is in none of them.
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

from segpipe.data.splits import DEALT_FILE, deal_folds, near_folds
from segpipe.errors import ConfigError
from segpipe.files import read_json
from segpipe.models.weights.warm_start import parse_release
from segpipe.training.plan import Folds

if TYPE_CHECKING:
    from segpipe.config import Candidate, Params, TrainParams
    from segpipe.data.shards import ShardReader
    from segpipe.models.registry import Family
    from segpipe.samples import Sample
    from segpipe.training.plan import Plan
    from segpipe.training.sampling.crops import Reader

_SEEN = 1 << 12
"""Pixels of an image that say whether it is another one's copy."""
_SEEDS = 100
"""Seeds from one candidate's to the next: more than there are members."""


class SampleSubset:
    """Some samples of several readers, as one reader. places: which of them, counted through the readers."""

    def __init__(self, readers: Sequence[Reader], places: Sequence[int]) -> None:
        self.readers, self.places = readers, places
        self._starts = np.cumsum([0, *map(len, readers)])

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Sample:
        place = self.places[index]
        reader = int(np.searchsorted(self._starts, place, side="right")) - 1
        return self.readers[reader][place - int(self._starts[reader])]

    @cached_property
    def class_pixels(self) -> npt.NDArray[np.int64]:
        """Pixels of each class in each sample, shape (n, n_classes)."""
        return np.concatenate([reader.class_pixels for reader in self.readers])[list(self.places)]


@dataclass(frozen=True)
class DealtFolds:
    """The images of train and val, the fold of each, and the other folds that have an image too like it (none where left out)."""

    readers: tuple[ShardReader, ...]
    keys: list[str]
    numbers: list[int]
    near: Sequence[frozenset[int]] = ()

    def rest(self, fold: int) -> SampleSubset:
        """What the member that leaves a fold out is trained on."""
        near = self.near or [frozenset[int]()] * len(self.numbers)
        return SampleSubset(
            self.readers, [i for i, number in enumerate(self.numbers) if number != fold and fold not in near[i]]
        )

    def left_out(self, fold: int) -> SampleSubset:
        """What it never sees."""
        return SampleSubset(self.readers, [place for place, number in enumerate(self.numbers) if number == fold])

    @property
    def by_key(self) -> dict[str, int]:
        """The fold of each image."""
        return dict(zip(self.keys, self.numbers, strict=True))


def deal_out(folds: Folds, seed: int, train: ShardReader, val: ShardReader, shards: Path) -> DealtFolds:
    """Deal the images of train and val out, always in the same way. shards: their folder, with `DEALT_FILE` where that deals. Raises
    ConfigError where the gap leaves a member nothing to be trained on."""
    readers = train, val
    keys = [key for reader in readers for key in reader.keys]
    given = read_json(shards / DEALT_FILE) if folds.dealt == "split" else None
    if given is not None and not folds.gap:
        return DealtFolds(readers, keys, [given[key] for key in keys])
    rows = [_row(reader, place) for reader in readers for place in range(len(reader))]
    numbers = [given[key] for key in keys] if given else deal_folds(rows, folds.count, seed, folds.dealt == "blocks")
    dealt = DealtFolds(readers, keys, numbers, near_folds(rows, numbers, folds.gap) if folds.gap else ())
    if empty := [fold for fold in range(folds.count) if not len(dealt.rest(fold))]:
        raise ConfigError(
            f"the gap leaves nothing to train on without fold {empty[0]}",
            where="split.gap",
            found=folds.gap,
            fix="make it smaller, or train.folds",
        )
    return dealt


def choose_folds(count: int, params: Params, shards: Path) -> Folds:
    """How the images are dealt out: as `split.folds` did, or else as the splits were. Raises ConfigError where `split.folds` deals to
    another number of folds, or leaves one of them empty."""
    path, gap = shards / DEALT_FILE, params.split.gap
    if not path.exists():
        return Folds(count=count, dealt="blocks" if params.split.method == "ranges" else "groups", gap=gap)
    numbers = set(read_json(path).values())
    if numbers != set(range(count)):
        raise ConfigError(
            "split.folds deals the images of train and val otherwise",
            where="train.folds",
            found=f"{count}, and folds {sorted(numbers)}",
            fix="set both to the same number, or split.folds to null; fewer where a fold is empty",
        )
    return Folds(count=count, dealt="split", gap=gap)


def check_folds(candidate: Candidate, of: Family) -> None:
    """Raise ConfigError where members could not be averaged, or would not judge images that are new to them."""
    fix = "take `folds` out, or set `train: {folds: null}` under the candidate"
    if of.kind == "detector":
        raise ConfigError(f"the objects that several {of.name} find can't be averaged", where="train.folds", fix=fix)
    source = str(candidate.options.get("encoder_weights", ""))
    if parse_release(source):
        raise ConfigError(
            "a release has learned from the images of all folds, so no member could be judged by the one that it leaves out",
            where="train.folds",
            found=f"encoder_weights: {source}",
            fix=f"{fix}, or encoder_weights: auto",
        )


def describe_folds(folds: Folds, dealt: DealtFolds, wanted: TrainParams) -> str:
    """What folds come to, for `segpipe plan C --explain`."""
    how = {
        "split": "as split.folds deals them",
        "groups": "groups whole, rare classes in each",
        "blocks": "in blocks of each stack",
    }[folds.dealt]
    sizes = sorted({dealt.numbers.count(fold) for fold in range(folds.count)})
    images = f"{sizes[0]} to {sizes[-1]} images" if len(sizes) > 1 else f"{sizes[0]} images"
    beside = f" and without the {folds.gap} images on either side of its blocks" if folds.gap else ""
    return (
        f"{folds.count} members, each trained without one fold of train and val ({images}, {how}){beside}, which "
        f"chooses its checkpoint; the budget of {wanted.budget} is shared out among them; the model is the mean of what they say, "
        "and val judges it by the member that has not seen the image"
    )


def member_plan(plan: Plan, fold: int) -> Plan:
    """The plan of the member that leaves a fold out: its own seed, and nothing that is chosen for the finished model."""
    assert plan.recipe is not None
    recipe = plan.recipe.model_copy(update={"cleaning": "none", "tta": "none"})
    seed = plan.seed * _SEEDS + fold
    return plan.model_copy(update={"recipe": recipe, "postprocess": None, "folds": None, "seed": seed})


def _row(reader: ShardReader, place: int) -> dict[str, Any]:
    """What a manifest's row would say of a sample. Its content is told by some of its pixels: copies stay together, as groups do."""
    sample, counts = reader[place], reader.class_pixels[place].tolist()
    pixels = sample.image.reshape(-1)
    some = np.ascontiguousarray(pixels[:: max(1, len(pixels) // _SEEN)])
    content = hashlib.sha256(f"{sample.image.shape}".encode() + some.tobytes()).hexdigest()
    return {"key": sample.key, "group": sample.group, "sha256": content, "class_pixels": counts}

"""Which images train, which choose, which judge, and which fold of a cross-validation they stand in.

| split.method | who stands where | what moves when images are added |
|---|---|---|
| hash | each group (or image without one) by a hash of itself | none |
| stratified | by hash within strata: groups by the rarest class that they show | at the edges one group or so (see `_stratified`) |
| ranges | the last of each stack's images, in key order, judge; those before choose | images of the stacks that grew |

Splits that samples.csv gives stand above all of them.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from segpipe.config import SplitParams
from segpipe.errors import ConfigError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

FOLDS_FILE = "folds.json"
"""In the folder of the shards, where `split.folds` deals: {key: fold} of the images of train and val."""

Rows = Sequence[Mapping[str, Any]]
"""Rows of a manifest with key, group, sha256, class_pixels, and split where it is given."""


def assign_split(identity: str, params: SplitParams) -> Split:
    """The split by hash of everything that shares an identity (a group's name, or an image's content hash).

    SHA-256 of seed and identity, read as a number in [0, 1), falls below `test`, below `test + val`, or above: shares hold in
    expectation, and depend on nothing but the identity itself.
    """
    place = _position(identity, params.seed)
    if place < params.test:
        return "test"
    return "val" if place < params.test + params.val else "train"


def assign_splits(rows: Rows, params: SplitParams) -> list[Split | None]:
    """The split of each row: the given one, or by `params.method`. None for an image in the gap between two ranges."""
    if params.method == "ranges":
        drawn = _ranges(rows, params)
    elif params.method == "stratified":
        by_identity = _stratified(rows, params)
        drawn = [by_identity.get(grouping_key(row)) for row in rows]
    else:
        drawn = [assign_split(grouping_key(row), params) for row in rows]
    return [row["split"] or split for row, split in zip(rows, drawn, strict=True)]


def assign_folds(rows: Rows, params: SplitParams) -> list[int | None]:
    """The fold, 0 .. folds - 1, of each row, whatever its split; None for all where no folds are wanted.

    By a hash of its own (adding images moves none, groups stay together, and folds do not follow splits); for `ranges`, equal
    blocks of each stack.
    """
    if params.folds is None:
        return [None] * len(rows)
    if params.method == "ranges":
        return [place * params.folds // size for place, size in _places(rows)]
    return [int(_position(f"fold\0{grouping_key(row)}", params.seed) * params.folds) for row in rows]


def balanced_folds(rows: Rows, folds: int, seed: int, blocks: bool = False) -> list[int]:
    """The fold, 0 .. folds - 1, of each row: as many images in each as groups allow, and as many of those with rare classes.

    Groups are dealt one after another, those whose rarest class is the rarest first, of these the largest first and then by hash;
    each goes to the fold with the fewest images of its kind, then with the fewest of all. So no fold is empty. blocks: equal blocks
    of each stack instead, as `ranges` deals. Raises ConfigError where there are too few groups (or images) to deal.
    """
    if blocks:
        found = [place * folds // size for place, size in _places(rows)]
        units = len(set(found))
    else:
        images = Counter(map(grouping_key, rows))
        units, dealt, filled = len(images), dict[str, int](), [0] * folds
        for names in _strata(rows, seed)[0]:
            own = [0] * folds
            for name in sorted(names, key=lambda name: -images[name]):
                fold = min(range(folds), key=lambda f: (own[f], filled[f]))
                own[fold] += images[name]
                filled[fold] += images[name]
                dealt[name] = fold
        found = [dealt[grouping_key(row)] for row in rows]
    if units < folds:
        raise ConfigError(
            f"{units} {'blocks' if blocks else 'groups of images'} can't be dealt out to {folds} folds", where="train.folds",
            fix=f"set it to {units} or fewer" if units > 1 else "set it to null",
        )
    return found


def folds_within_gap(rows: Rows, folds: Sequence[int], gap: int) -> list[frozenset[int]]:
    """For each row the folds, but its own, that have an image within `gap` places of it in its stack: what is left out of one of them
    judges a network, which has therefore not to be trained on this row. Places are counted among the rows given."""
    near: list[set[int]] = [set() for _ in rows]
    for stack in _stacks(rows):
        for place, index in enumerate(stack):
            around = stack[max(0, place - gap) : place + gap + 1]
            near[index] = {folds[other] for other in around} - {folds[index]}
    return [frozenset(others) for others in near]


def grouping_key(row: Mapping[str, Any]) -> str:
    """What stays together: a row's group, else the content of its image, else (where it cannot be read) its key."""
    return str(row["group"] or row["sha256"] or row["key"])


def natural_sort_key(key: str) -> list[tuple[str, int]]:
    """A sort key by which frame2 comes before frame10."""
    return [(words, int(digits or 0)) for digits, words in re.findall(r"(\d+)|(\D+)", key)]


def _position(identity: str, seed: int) -> float:
    digest = hashlib.sha256(f"{seed}\0{identity}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _stratified(rows: Rows, params: SplitParams) -> dict[str, Split]:
    """Exact shares (rounded) in every stratum, and all classes in train.

    A stratum holds the groups whose rarest class is the same; rare is what few groups show. In a stratum the groups stand in the
    order of their hashes, and those with the smallest become test, then val, so that a new group shifts an edge by one place at
    most. The largest stratum evens out what the others round. So of the groups that were there, one for each edge of the two
    strata may move; more only where the new image makes another class the rarer one.
    """
    strata, shown, classes = _strata([row for row in rows if not row["split"]], params.seed)
    drawn: dict[str, Split] = {}
    shares: tuple[tuple[Split, float], ...] = (("test", params.test), ("val", params.val))
    left = {split: _round(share * len(shown)) for split, share in shares}
    by_size = sorted(strata, key=len)
    for names in by_size:
        last, size = names is by_size[-1], len(names)
        for split, share in shares:
            wanted = left[split] if last else _round(share * size)
            taken = min(max(wanted, 0), len(names) - 1)  # one stays to be trained on
            left[split] -= taken
            drawn |= dict.fromkeys(names[:taken], split)
            names = names[taken:]
        drawn |= dict.fromkeys(names, "train")
    return _all_in_train(drawn, shown, classes)


def _strata(rows: Rows, seed: int) -> tuple[list[list[str]], dict[str, set[int]], list[int]]:
    """Identities by their rarest class, the rarest first, each stratum by hash; the classes that each identity shows; and all classes,
    the rarest first. Rare is what few identities show."""
    shown: dict[str, set[int]] = defaultdict(set)
    for row in rows:
        shown[grouping_key(row)].update(c for c, n in enumerate(_listed(row["class_pixels"])) if n)
    frequency = Counter(c for classes in shown.values() for c in classes)
    rarity = {c: rank for rank, c in enumerate(sorted(frequency, key=lambda c: (frequency[c], c)))}
    strata: dict[int, list[str]] = defaultdict(list)
    for name in sorted(shown, key=lambda name: (_position(name, seed), name)):
        strata[min((rarity[c] for c in shown[name]), default=len(rarity))].append(name)
    return [strata[rank] for rank in sorted(strata)], shown, list(rarity)


def _all_in_train(drawn: dict[str, Split], shown: dict[str, set[int]], classes: list[int]) -> dict[str, Split]:
    """Move a group to train for each class that has none there."""
    for wanted in classes:
        with_class = [name for name in drawn if wanted in shown[name]]
        if all(drawn[name] != "train" for name in with_class):
            drawn[with_class[-1]] = "train"
    return drawn


def _ranges(rows: Rows, params: SplitParams) -> list[Split | None]:
    """Each stack in blocks, by place: train, val, test. The last `gap` images before a block are left out."""
    drawn: list[Split | None] = []
    for place, size in _places(rows):
        test = size - _round(params.test * size)
        val = test - _round(params.val * size)
        near = any(place < begin <= place + params.gap for begin in {val, test} - {size})
        drawn.append(None if near else "train" if place < val else "val" if place < test else "test")
    return drawn


def _places(rows: Rows) -> list[tuple[int, int]]:
    """For each row, its place among the rows of its group in natural order of keys, and their number."""
    places = {index: (place, len(stack)) for stack in _stacks(rows) for place, index in enumerate(stack)}
    return [places[index] for index in range(len(rows))]


def _stacks(rows: Rows) -> list[list[int]]:
    """Which rows are of one group, in natural order of keys."""
    stacks: dict[str | None, list[int]] = defaultdict(list)
    for index in sorted(range(len(rows)), key=lambda index: natural_sort_key(rows[index]["key"])):
        stacks[rows[index]["group"]].append(index)
    return list(stacks.values())


def _listed(pixels: Any) -> list[int]:
    return [] if pixels is None else list(pixels)


def _round(number: float) -> int:
    return math.floor(number + 0.5)

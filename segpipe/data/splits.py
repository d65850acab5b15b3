"""Assign images to splits (train, val, test), and to the folds of a cross-validation.

| split.method | assignment | images that move when images are added |
|---|---|---|
| hash | each group (or each image without a group) by a hash of its name (or content) | none |
| stratified | by hash within strata; the stratum of a group is its rarest class | about one group at each boundary \
(see `_stratified_splits`) |
| ranges | the last images of each stack, in order of their keys, are test, those before them val | images of the stacks that grew |

A split that samples.csv gives takes precedence over all of them. Fewer than 20 groups are balanced instead of drawn by hash
(`segpipe.data.few_groups`).
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from segpipe.config import SplitParams
from segpipe.data.few_groups import SPLITS, Rows, Split, few_group_splits, has_few_groups, hash_position
from segpipe.errors import ConfigError

__all__ = ["SPLITS", "Rows", "Split"]

FOLDS_FILE = "folds.json"
"""The file next to the shards, written if `split.folds` is set: {key: fold} of the images of train and val."""


def assign_split(identity: str, params: SplitParams) -> Split:
    """Return the split of one group by hash. It depends on nothing but the group itself.

    SHA-256 of seed and identity, read as a number in [0, 1), is below `params.test` (test), below `params.test + params.val` (val),
    or above (train). So the shares hold on average only.

    Args:
        identity: the name of a group, or the content hash of an image without a group (`grouping_key`).
        params: the shares of val and test, and the seed.
    """
    position = hash_position(identity, params.seed)
    if position < params.test:
        return "test"
    return "val" if position < params.test + params.val else "train"


def assign_splits(rows: Rows, params: SplitParams) -> list[Split | None]:
    """Assign each row to a split.

    Args:
        rows: rows of a manifest.
        params: the method, the shares of val and test, the gap and the seed.

    Returns:
        For each row the split that samples.csv gives, else one by `params.method`; None for an image in the gap between two ranges.
    """
    splits: Sequence[Split | None]
    if params.method == "ranges":
        splits = _range_splits(rows, params)
    elif has_few_groups(rows):
        by_group = few_group_splits(rows, params)
        splits = [by_group.get(str(row["group"])) for row in rows]
    elif params.method == "stratified":
        by_identity = _stratified_splits(rows, params)
        splits = [by_identity.get(grouping_key(row)) for row in rows]
    else:
        splits = [assign_split(grouping_key(row), params) for row in rows]
    return [row["split"] or split for row, split in zip(rows, splits, strict=True)]


def assign_folds(rows: Rows, params: SplitParams) -> list[int | None]:
    """Assign each row to a fold, whatever its split.

    The fold follows from a hash of its own: adding images moves none, groups stay together, and folds are independent of splits. For
    `split.method: ranges` the folds are equal blocks of each stack.

    Args:
        rows: rows of a manifest.
        params: the number of folds, the method and the seed.

    Returns:
        The fold of each row, 0 .. folds - 1; None for all rows if `params.folds` is not set.
    """
    if params.folds is None:
        return [None] * len(rows)
    if params.method == "ranges":
        return [position * params.folds // size for position, size in _stack_positions(rows)]
    return [int(hash_position(f"fold\0{grouping_key(row)}", params.seed) * params.folds) for row in rows]


def balanced_folds(rows: Rows, folds: int, seed: int, blocks: bool = False) -> list[int]:
    """Assign rows to folds of nearly equal size, with nearly equal numbers of images with rare classes. No fold is empty.

    Groups are assigned one after another: first those with the rarest classes, of these first the largest, then by hash. Each goes
    to the fold that has the fewest images of its stratum, and of these to the fold with the fewest images.

    Args:
        rows: rows of a manifest.
        folds: the number of folds.
        seed: another seed gives other folds.
        blocks: use equal blocks of each stack instead, as `split.method: ranges` does.

    Returns:
        The fold of each row, 0 .. folds - 1.

    Raises:
        ConfigError: if there are fewer groups (or blocks) than folds.
    """
    if blocks:
        assigned = [position * folds // size for position, size in _stack_positions(rows)]
        units = len(set(assigned))
    else:
        images = Counter(map(grouping_key, rows))
        units = len(images)
        fold_of: dict[str, int] = {}
        total_images = [0] * folds
        for identities in _strata(rows, seed)[0]:
            stratum_images = [0] * folds
            for identity in sorted(identities, key=lambda identity: -images[identity]):
                fold = min(range(folds), key=lambda f: (stratum_images[f], total_images[f]))
                stratum_images[fold] += images[identity]
                total_images[fold] += images[identity]
                fold_of[identity] = fold
        assigned = [fold_of[grouping_key(row)] for row in rows]
    if units < folds:
        raise ConfigError(
            f"{units} {'blocks' if blocks else 'groups of images'} cannot be divided into {folds} folds",
            where="train.folds",
            fix=f"set it to {units} or fewer" if units > 1 else "set it to null",
        )
    return assigned


def folds_within_gap(rows: Rows, folds: Sequence[int], gap: int) -> list[frozenset[int]]:
    """Return for each row the other folds that have an image within `gap` positions of it in its stack.

    The network that is evaluated on such a fold must not be trained on the row.

    Args:
        rows: rows of a manifest; positions are counted among these rows.
        folds: the fold of each row.
        gap: a number of positions.
    """
    near: list[set[int]] = [set() for _ in rows]
    for stack in _stacks(rows):
        for position, index in enumerate(stack):
            neighbours = stack[max(0, position - gap) : position + gap + 1]
            near[index] = {folds[other] for other in neighbours} - {folds[index]}
    return [frozenset(others) for others in near]


def grouping_key(row: Mapping[str, Any]) -> str:
    """Return the identity of the group that a row belongs to: rows with the same identity are always in one split.

    It is the row's group, else the content hash of its image, else (if the image cannot be read) its key.
    """
    return str(row["group"] or row["sha256"] or row["key"])


def natural_sort_key(key: str) -> list[tuple[str, int]]:
    """Return a sort key that compares numbers by value: frame2 comes before frame10."""
    return [(words, int(digits or 0)) for digits, words in re.findall(r"(\d+)|(\D+)", key)]


def _stratified_splits(rows: Rows, params: SplitParams) -> dict[str, Split]:
    """Return the split of each identity: exact shares (rounded) in every stratum, and every class in train.

    A stratum holds the groups with the same rarest class; a class is rare if few groups show it. Within a stratum the groups are
    ordered by their hashes; the first become test, the next val. So a new group moves each boundary by at most one position. The
    largest stratum compensates for the rounding in the others. In total, adding a group moves at most one group for each boundary of
    two strata, and more only if the new image changes which class is the rarer one.
    """
    strata, classes_of, classes = _strata([row for row in rows if not row["split"]], params.seed)
    assigned: dict[str, Split] = {}
    shares: tuple[tuple[Split, float], ...] = (("test", params.test), ("val", params.val))
    remaining = {split: _round(share * len(classes_of)) for split, share in shares}
    by_size = sorted(strata, key=len)
    for identities in by_size:
        last, size = identities is by_size[-1], len(identities)
        for split, share in shares:
            target = remaining[split] if last else _round(share * size)
            count = min(max(target, 0), len(identities) - 1)  # at least one stays in train
            remaining[split] -= count
            assigned |= dict.fromkeys(identities[:count], split)
            identities = identities[count:]
        assigned |= dict.fromkeys(identities, "train")
    return _with_all_classes_in_train(assigned, classes_of, classes)


def _strata(rows: Rows, seed: int) -> tuple[list[list[str]], dict[str, set[int]], list[int]]:
    """Divide identities into strata by their rarest class. A class is rare if few identities show it.

    Returns:
        The strata, that of the rarest class first; each is a list of identities in the order of their hashes.
        The classes that each identity shows.
        All classes, the rarest first.
    """
    classes_of: dict[str, set[int]] = defaultdict(set)
    for row in rows:
        pixels = [] if row["class_pixels"] is None else list(row["class_pixels"])
        classes_of[grouping_key(row)].update(c for c, n in enumerate(pixels) if n)
    frequency = Counter(c for classes in classes_of.values() for c in classes)
    rarity = {c: rank for rank, c in enumerate(sorted(frequency, key=lambda c: (frequency[c], c)))}
    strata: dict[int, list[str]] = defaultdict(list)
    for identity in sorted(classes_of, key=lambda identity: (hash_position(identity, seed), identity)):
        strata[min((rarity[c] for c in classes_of[identity]), default=len(rarity))].append(identity)
    return [strata[rank] for rank in sorted(strata)], classes_of, list(rarity)


def _with_all_classes_in_train(
    assigned: dict[str, Split], classes_of: dict[str, set[int]], classes: list[int]
) -> dict[str, Split]:
    """Move a group to train for each class that train does not show."""
    for class_id in classes:
        with_class = [identity for identity in assigned if class_id in classes_of[identity]]
        if all(assigned[identity] != "train" for identity in with_class):
            assigned[with_class[-1]] = "train"
    return assigned


def _range_splits(rows: Rows, params: SplitParams) -> list[Split | None]:
    """Cut each stack into the blocks train, val and test. The last `gap` images before a block are left out."""
    splits: list[Split | None] = []
    for position, size in _stack_positions(rows):
        test = size - _round(params.test * size)
        val = test - _round(params.val * size)
        in_gap = any(position < begin <= position + params.gap for begin in {val, test} - {size})
        splits.append(None if in_gap else "train" if position < val else "val" if position < test else "test")
    return splits


def _stack_positions(rows: Rows) -> list[tuple[int, int]]:
    """Return for each row its position in its stack and the size of the stack."""
    positions = {index: (position, len(stack)) for stack in _stacks(rows) for position, index in enumerate(stack)}
    return [positions[index] for index in range(len(rows))]


def _stacks(rows: Rows) -> list[list[int]]:
    """Return the stacks: the indices of the rows of each group, in natural order of their keys."""
    stacks: dict[str | None, list[int]] = defaultdict(list)
    for index in sorted(range(len(rows)), key=lambda index: natural_sort_key(rows[index]["key"])):
        stacks[rows[index]["group"]].append(index)
    return list(stacks.values())


def _round(number: float) -> int:
    return math.floor(number + 0.5)

"""Splits of a dataset with few groups: images and classes are balanced over train, val and test.

By hash alone, seven groups can give 27, 2 and 22 images. Here the groups are exchanged between the splits as long as that brings the
shares of images nearer to those asked for, or brings a class into a split that lacks it.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from segpipe.config import SplitParams

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

Rows = Sequence[Mapping[str, Any]]
"""Rows of a manifest with key, group, sha256, class_pixels, and split if samples.csv gives it."""


FEW_GROUPS = 20
"""Fewer groups than this are balanced."""
_EMPTY_SPLIT, _NOT_IN_TRAIN, _NOT_ELSEWHERE = 100.0, 1000.0, 1.0
"""What an empty split costs, and a class that is missing in train or in another split. A share of images that is off by x costs x**2."""
_MIN_IMBALANCE = 0.1
"""Shares of images that differ by more than this from those asked for are reported."""


def has_few_groups(rows: Rows) -> bool:
    """Return whether all images without a given split are in groups, and these are few, but at least two."""
    free = [row for row in rows if not row["split"]]
    groups = {row["group"] for row in free}
    return bool(free) and all(groups) and 2 <= len(groups) < FEW_GROUPS


def few_group_splits(rows: Rows, params: SplitParams) -> dict[str, Split]:
    """Return the split of each group that has images without a given split.

    The result depends on the names of the groups, the seed, the classes of each group, and its number of images rounded to a power
    of two: so it usually stays the same when images join known groups.

    Args:
        rows: rows of a manifest.
        params: the shares of val and test, and the seed.
    """
    table = _Groups.from_rows(rows, params)
    assigned = dict.fromkeys(table.names, SPLITS[0])
    for split in SPLITS[1:]:  # start with one group for each of val and test, the smallest first
        rest = [name for name in table.names if assigned[name] == "train"]
        if len(rest) > 1:
            assigned[min(rest, key=lambda name: table.sizes[name])] = split
    cost = table.cost(assigned)
    while (better := _best_change(table, assigned, cost)) is not None:
        assigned, cost = better
    return assigned


def imbalances(rows: Rows, splits: Sequence[Split | None], params: SplitParams) -> list[str]:
    """Return in words what the splits of few groups could not balance; nothing for many groups or given splits.

    Args:
        rows: rows of a manifest.
        splits: the split of each row.
        params: the shares of val and test.
    """
    if params.method == "ranges" or not has_few_groups(rows):
        return []
    counts = Counter(splits)
    total = sum(counts[split] for split in SPLITS)
    notes = []
    for split, share in zip(SPLITS, _shares(params), strict=True):
        if abs(counts[split] / total - share) > _MIN_IMBALANCE:
            notes.append(f"{split} has {counts[split]} of {total} images ({share:.0%} asked for)")
    classes = [_classes_of([row for row, s in zip(rows, splits, strict=True) if s == split]) for split in SPLITS]
    for split, found in zip(SPLITS, classes, strict=True):
        if missing := set().union(*classes) - found:
            notes.append(f"{split} lacks class ids {', '.join(map(str, sorted(missing)))}")
    return notes


@dataclass(frozen=True)
class _Groups:
    """The groups to assign.

    names: in the order of their hashes.
    sizes: the number of images of each, rounded to a power of two.
    classes: the class ids of each.
    given_sizes: the images of each split that samples.csv gives.
    given_classes: the class ids of these.
    shares: the share of the images that each split is to have.
    """

    names: list[str]
    sizes: dict[str, float]
    classes: dict[str, frozenset[int]]
    given_sizes: dict[str, int]
    given_classes: dict[str, frozenset[int]]
    shares: tuple[float, float, float]

    @classmethod
    def from_rows(cls, rows: Rows, params: SplitParams) -> _Groups:
        by_group: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        given: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for row in rows:
            (given[str(row["split"])] if row["split"] else by_group[str(row["group"])]).append(row)
        return cls(
            names=sorted(by_group, key=lambda name: (hash_position(name, params.seed), name)),
            sizes={name: 2.0 ** round(math.log2(len(group))) for name, group in by_group.items()},
            classes={name: _classes_of(group) for name, group in by_group.items()},
            given_sizes={split: len(given[split]) for split in SPLITS},
            given_classes={split: _classes_of(given[split]) for split in SPLITS},
            shares=_shares(params),
        )

    def cost(self, assigned: Mapping[str, Split]) -> float:
        """Return how bad an assignment is; 0 is perfect."""
        sizes = {split: float(self.given_sizes[split]) for split in SPLITS}
        classes = {split: set(self.given_classes[split]) for split in SPLITS}
        for name, split in assigned.items():
            sizes[split] += self.sizes[name]
            classes[split] |= self.classes[name]
        total, present = sum(sizes.values()), set().union(*classes.values())
        cost = 0.0
        for split, share in zip(SPLITS, self.shares, strict=True):
            missing = len(present - classes[split])
            cost += (sizes[split] / total - share) ** 2
            cost += missing * (_NOT_IN_TRAIN if split == "train" else _NOT_ELSEWHERE)
            cost += _EMPTY_SPLIT * (not sizes[split] and share > 0)
        return cost


def _best_change(table: _Groups, assigned: dict[str, Split], cost: float) -> tuple[dict[str, Split], float] | None:
    """Return the assignment after the best move of one group, or exchange of two; None if none is better."""
    best = None
    moves: list[dict[str, Split]] = [
        {name: split} for name in table.names for split in SPLITS if assigned[name] != split
    ]
    pairs = itertools.combinations(table.names, 2)
    moves += [{a: assigned[b], b: assigned[a]} for a, b in pairs if assigned[a] != assigned[b]]
    for move in moves:
        changed = assigned | move
        changed_cost = table.cost(changed)
        if changed_cost < cost - 1e-12:
            best, cost = (changed, changed_cost), changed_cost
    return best


def _shares(params: SplitParams) -> tuple[float, float, float]:
    return 1 - params.val - params.test, params.val, params.test


def _classes_of(rows: Sequence[Mapping[str, Any]]) -> frozenset[int]:
    return frozenset(
        c for row in rows if row["class_pixels"] is not None for c, pixels in enumerate(row["class_pixels"]) if pixels
    )


def hash_position(identity: str, seed: int) -> float:
    """Hash an identity to a number in [0, 1)."""
    digest = hashlib.sha256(f"{seed}\0{identity}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64

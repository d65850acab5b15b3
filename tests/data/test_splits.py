"""Splits and folds: shares, stability, groups and determinism."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import binom, chisquare

from segpipe.config import SplitParams
from segpipe.data.few_groups import has_few_groups
from segpipe.data.splits import (
    SPLITS,
    assign_folds,
    assign_split,
    assign_splits,
    balanced_folds,
    folds_within_gap,
    grouping_key,
    natural_sort_key,
)
from segpipe.errors import ConfigError
from tests.worlds.small_datasets import SPLIT

Row = dict[str, Any]


def make_row(key: str, classes: list[int] | None = None, group: str | None = None, split: str | None = None) -> Row:
    return {"key": key, "sha256": f"content of {key}", "group": group, "split": split, "class_pixels": classes}


PRESENCE = st.lists(st.sampled_from([0, 7]), min_size=4, max_size=4)
DATASETS = st.lists(st.tuples(PRESENCE, st.sampled_from([None, None, "a", "b", "c"])), min_size=1, max_size=60).map(
    lambda pairs: [make_row(f"im{i}", classes, group) for i, (classes, group) in enumerate(pairs)]
)
METHODS = [SplitParams(), SplitParams(method="stratified"), SplitParams(method="ranges", gap=1)]


def test_shares_hold_and_similar_names_are_independent() -> None:
    counts = Counter(assign_split(f"image-{i:05d}", SPLIT) for i in range(20_000))
    expected = {"train": 0.65, "val": 0.15, "test": 0.20}
    assert chisquare([counts[s] for s in expected], [20_000 * p for p in expected.values()]).pvalue > 1e-3
    in_test = np.array([assign_split(f"image-{i:05d}", SPLIT) == "test" for i in range(20_000)], float)
    assert abs(np.corrcoef(in_test[:-1], in_test[1:])[0, 1]) < 0.03


@given(identity=st.text(), seed=st.integers(0, 2**31), val=st.floats(0.01, 0.4), test=st.floats(0.01, 0.4))
def test_a_larger_test_share_keeps_all_images_of_the_smaller_one(
    identity: str, seed: int, val: float, test: float
) -> None:
    small, large = SplitParams(val=val, test=test, seed=seed), SplitParams(val=val, test=test + 0.1, seed=seed)
    assert assign_split(identity, small) != "test" or assign_split(identity, large) == "test"


def test_the_splits_of_these_names_never_change() -> None:
    expected = ["train", "train", "val", "val", "val", "val", "train", "train", "test", "val"]
    names = ["a", "b", "c", "d", "e", "f", "g", "h", "pink-slide-03", "blue-slide-05"]
    assert [assign_split(n, SPLIT) for n in names] == expected
    assert [assign_split(n, SplitParams(seed=1)) for n in names] != expected


@given(rows=DATASETS, more=DATASETS)
def test_added_images_do_not_move_others_with_the_hash_method(rows: list[Row], more: list[Row]) -> None:
    new = [row | {"key": f"new {row['key']}", "sha256": f"new {row['sha256']}"} for row in more]
    params = SplitParams(folds=4)
    together = [*new, *rows]
    assume(not has_few_groups(rows) and not has_few_groups(together))
    assert assign_splits(together, params)[len(new) :] == assign_splits(rows, params)
    assert assign_folds(together, params)[len(new) :] == assign_folds(rows, params)


@given(rows=DATASETS, params=st.sampled_from(METHODS[:2]), folds=st.integers(2, 7), order=st.randoms())
def test_groups_stay_together_and_order_does_not_matter(
    rows: list[Row], params: SplitParams, folds: int, order: Any
) -> None:
    params = params.model_copy(update={"folds": folds})
    assignments = defaultdict(set)
    assigned = list(zip(rows, assign_splits(rows, params), assign_folds(rows, params), strict=True))
    for row, split, fold in assigned:
        assignments[grouping_key(row)].add((split, fold))
        assert split in SPLITS
        assert fold is not None and 0 <= fold < folds
    assert all(len(pairs) == 1 for pairs in assignments.values())
    shuffled = order.sample(assigned, len(assigned))
    shuffled_rows = [row for row, _, _ in shuffled]
    assert assign_splits(shuffled_rows, params) == [split for _, split, _ in shuffled]
    assert assign_folds(shuffled_rows, params) == [fold for _, _, fold in shuffled]


@given(rows=DATASETS, params=st.sampled_from(METHODS), data=st.data())
def test_given_splits_are_kept(rows: list[Row], params: SplitParams, data: st.DataObject) -> None:
    for row in rows:
        row["split"] = data.draw(st.sampled_from([None, *SPLITS]))
    for row, split in zip(rows, assign_splits(rows, params), strict=True):
        assert row["split"] in (None, split)


def test_stratified_shares_are_exact_and_hash_shares_are_not() -> None:
    rng = np.random.default_rng(0)
    for seed in range(20):
        presence = [[1, int(rng.random() < 0.5), int(rng.random() < 0.1)] for _ in range(200)]
        rows = [make_row(f"{seed}-{i}", classes) for i, classes in enumerate(presence)]
        splits = assign_splits(rows, SplitParams(method="stratified", seed=seed))
        assert Counter(splits) == {"train": 130, "val": 30, "test": 40}
        rare = Counter(split for split, classes in zip(splits, presence, strict=True) if classes[2])
        total = sum(rare.values())
        assert rare["test"] == math.floor(0.2 * total + 0.5)
        assert rare["val"] == math.floor(0.15 * total + 0.5)
        by_hash = Counter(assign_splits(rows, SplitParams(seed=seed)))
        for split, share in (("test", 0.2), ("val", 0.15)):
            low, high = binom.interval(1 - 1e-6, len(rows), share)
            assert low <= by_hash[split] <= high


@given(rows=DATASETS)
def test_stratified_training_has_every_class(rows: list[Row]) -> None:
    splits = assign_splits(rows, SplitParams(method="stratified"))
    for c in range(4):
        with_class = {split for row, split in zip(rows, splits, strict=True) if row["class_pixels"][c]}
        assert not with_class or "train" in with_class


def test_one_more_image_moves_at_most_one_group_at_each_boundary() -> None:
    moved = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        presence = (rng.random((int(rng.integers(40, 120)), 4)) < [1, 0.6, 0.25, 0.06]).astype(int)
        rows = [make_row(f"{seed}-{i}", classes.tolist()) for i, classes in enumerate(presence)]
        rarity_orders = [np.argsort(part.sum(0), kind="stable").tolist() for part in (presence, presence[:-1])]
        if rarity_orders[0] != rarity_orders[1]:
            continue
        params = SplitParams(method="stratified", seed=seed)
        before, after = assign_splits(rows[:-1], params), assign_splits(rows, params)
        moved.append(sum(a != b for a, b in zip(before, after, strict=False)))
    assert len(moved) > 100
    assert max(moved) <= 4  # two boundaries in its stratum, two in the largest


def test_ranges_are_blocks_in_natural_order_with_gaps() -> None:
    rows = [make_row(f"slice{i}", group="stack") for i in range(20)] + [make_row("alone")]
    split = dict(
        zip((row["key"] for row in rows), assign_splits(rows, SplitParams(method="ranges", gap=2)), strict=True)
    )
    splits = [split[f"slice{i}"] for i in range(20)]
    assert splits == ["train"] * 11 + [None] * 2 + ["val"] + [None] * 2 + ["test"] * 4
    assert split["alone"] == "train"
    without_gap = assign_splits(rows[:20], SplitParams(method="ranges"))
    assert without_gap == ["train"] * 13 + ["val"] * 3 + ["test"] * 4
    assert assign_folds(rows[:20], SplitParams(method="ranges", folds=5)) == [i // 4 for i in range(20)]


@given(size=st.integers(1, 80), gap=st.integers(0, 12), val=st.floats(0.05, 0.45), test=st.floats(0.05, 0.45))
def test_two_ranges_are_at_least_the_gap_apart(size: int, gap: int, val: float, test: float) -> None:
    rows = [make_row(f"f{i}", group="video") for i in range(size)]
    splits = assign_splits(rows, SplitParams(method="ranges", gap=gap, val=val, test=test))
    for a in range(size):
        for b in range(a + 1, min(size, a + 1 + gap)):
            assert splits[a] is None or splits[b] is None or splits[a] == splits[b]
    in_splits = [split for split in splits if split]
    assert in_splits == sorted(in_splits, key=["train", "val", "test"].index)


@given(st.permutations(["f1", "f2", "f10", "f10b", "g1", "1", "2", "10", ""]))
def test_natural_order(keys: list[str]) -> None:
    assert sorted(keys, key=natural_sort_key) == ["", "1", "2", "10", "f1", "f2", "f10", "f10b", "g1"]


def test_folds_are_even_and_independent_of_splits() -> None:
    rows = [make_row(f"im{i}") for i in range(5000)]
    params = SplitParams(folds=5)
    folds, splits = assign_folds(rows, params), assign_splits(rows, params)
    assert chisquare(list(Counter(folds).values())).pvalue > 1e-3
    test = Counter(fold for fold, split in zip(folds, splits, strict=True) if split == "test")
    assert chisquare(list(test.values())).pvalue > 1e-3
    assert assign_folds(rows, SplitParams()) == [None] * 5000


@given(rows=DATASETS, folds=st.integers(2, 6), seed=st.integers(0, 9), order=st.randoms())
def test_balanced_folds_keep_groups_together_and_none_is_empty(
    rows: list[Row], folds: int, seed: int, order: Any
) -> None:
    units = len({grouping_key(row) for row in rows})
    if units < folds:
        with pytest.raises(ConfigError, match=rf"{units} groups of images .* {folds} folds"):
            balanced_folds(rows, folds, seed)
        return
    assigned = balanced_folds(rows, folds, seed)
    assert set(assigned) == set(range(folds))
    fold_of = dict(zip(map(grouping_key, rows), assigned, strict=True))
    assert [fold_of[grouping_key(row)] for row in rows] == assigned
    shuffled = order.sample(rows, len(rows))
    assert balanced_folds(shuffled, folds, seed) == [fold_of[grouping_key(row)] for row in shuffled]


@given(presence=st.lists(PRESENCE, min_size=6, max_size=60), folds=st.integers(2, 6), seed=st.integers(0, 9))
def test_balanced_folds_are_even_in_size_and_in_the_rarest_class(
    presence: list[list[int]], folds: int, seed: int
) -> None:
    rows = [make_row(f"im{i}", classes) for i, classes in enumerate(presence)]
    assigned = np.array(balanced_folds(rows, folds, seed))
    sizes = np.bincount(assigned, minlength=folds)
    assert sizes.max() - sizes.min() <= 1
    present = np.array(presence) > 0
    if present.any():
        rarest = min((c for c in range(4) if present[:, c].any()), key=lambda c: (present[:, c].sum(), c))
        with_rarest = np.bincount(assigned[present[:, rarest]], minlength=folds)
        assert with_rarest.max() - with_rarest.min() <= 1


def test_large_groups_are_assigned_first() -> None:
    rows = [
        make_row(f"{group}{i}", group=group)
        for group, n in zip("abcdef", (1, 1, 1, 1, 4, 4), strict=True)
        for i in range(n)
    ]
    assert sorted(Counter(balanced_folds(rows, 3, 0)).values()) == [4, 4, 4]


def test_folds_of_a_stack_are_blocks_in_order() -> None:
    rows = [make_row(f"slice{i}", group="stack") for i in range(11)]
    assert balanced_folds(rows, 3, 0, blocks=True) == [i * 3 // 11 for i in range(11)]
    with pytest.raises(ConfigError, match="1 groups"):
        balanced_folds(rows, 3, 0)
    with pytest.raises(ConfigError, match="2 blocks"):
        balanced_folds(rows[:2], 3, 0, blocks=True)


@given(
    sizes=st.lists(st.integers(1, 25), min_size=1, max_size=3),
    gap=st.integers(0, 4),
    folds=st.integers(2, 4),
    order=st.randoms(),
    grouped=st.booleans(),
    dealt=st.sampled_from(["blocks", "split"]),
)
def test_all_neighbours_of_a_fold_are_within_its_gap(
    sizes: list[int], gap: int, folds: int, order: Any, grouped: bool, dealt: str
) -> None:
    """Compared with the positions in the whole stacks, before images in the gaps between splits were left out."""
    stacks = sizes if grouped else sizes[:1]
    names = [f"stack{s}" if grouped else None for s in range(len(stacks))]
    rows = [
        make_row(f"{name or ''}_{i}", group=name) for name, size in zip(names, stacks, strict=True) for i in range(size)
    ]
    order.shuffle(rows)
    params = SplitParams(method="ranges", gap=gap, folds=folds)
    splits, by_whole_stack = assign_splits(rows, params), assign_folds(rows, params)
    known = [i for i, split in enumerate(splits) if split in ("train", "val")]
    # In the manifest each part of a stack that is cut into ranges is a group of its own.
    known_rows = [rows[i] | {"group": rows[i]["group"] and f"{rows[i]['group']} ({splits[i]})"} for i in known]
    try:
        numbers = (
            balanced_folds(known_rows, folds, 0, blocks=True)
            if dealt == "blocks"
            else [by_whole_stack[i] or 0 for i in known]
        )
    except ConfigError:
        assume(False)
    near = folds_within_gap(known_rows, numbers, gap)
    stack = [rows[i]["group"] for i in known]
    position = [int(rows[i]["key"].rpartition("_")[2]) for i in known]
    for a in range(len(known_rows)):
        assert numbers[a] not in near[a]
        for b in range(len(known_rows)):
            if stack[a] == stack[b] and numbers[a] != numbers[b] and abs(position[a] - position[b]) <= gap:
                assert numbers[b] in near[a]
        too_far = near[a] - {
            numbers[b]
            for b in range(len(known_rows))
            if stack[a] == stack[b] and abs(position[a] - position[b]) <= 2 * gap
        }
        assert not too_far, "no row is left out for a fold that is far away"


def test_the_gap_around_a_fold() -> None:
    rows = [make_row(f"slice{i}", group="stack") for i in range(9)]
    folds = [i // 3 for i in range(9)]
    assert [*map(set, folds_within_gap(rows, folds, 1))] == [set(), set(), {1}, {0}, set(), {2}, {1}, set(), set()]
    assert not any(folds_within_gap(rows, folds, 0))


@pytest.mark.parametrize("params", METHODS, ids=lambda params: params.method)
def test_splits_do_not_depend_on_the_hash_seed_of_python(params: SplitParams) -> None:
    rows = [make_row(f"im{i}", [1, i % 3, i % 7 == 0], "ab"[i % 2] if i % 5 == 0 else None) for i in range(60)]
    code = (
        "import json, sys\nfrom segpipe.config import SplitParams\nfrom segpipe.data.splits import assign_splits\n"
        "rows, params = json.load(sys.stdin)\nprint(json.dumps(assign_splits(rows, SplitParams(**params))))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([rows, params.model_dump()]),
        env={"PYTHONHASHSEED": "77"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(process.stdout) == assign_splits(rows, params)


def test_a_gap_needs_ranges() -> None:
    with pytest.raises(ValueError, match="if a gap is set"):
        SplitParams(gap=3)

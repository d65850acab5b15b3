"""Splits of few groups: images and classes are balanced, the same way each time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from segpipe.config import SplitParams
from segpipe.data.few_groups import few_group_splits, has_few_groups, imbalances
from segpipe.data.splits import assign_splits

Row = dict[str, Any]


def make_rows(sizes: dict[str, int], classes: dict[str, list[int]] | None = None) -> list[Row]:
    """Return one row for each image of each group; every group shows classes 0 and 1 unless `classes` says otherwise."""
    rows: list[Row] = []
    for group, size in sizes.items():
        pixels = np.zeros(4, int)
        pixels[(classes or {}).get(group, [0, 1])] = 5
        rows += [
            {"key": f"{group}-{i}", "sha256": f"{group}{i}", "group": group, "split": None, "class_pixels": pixels}
            for i in range(size)
        ]
    return rows


TILES = {"t1": 9, "t2": 8, "t3": 7, "t4": 9, "t5": 8, "t6": 5, "t7": 5}


@pytest.mark.parametrize("seed", range(5))
def test_seven_tiles_are_balanced(seed: int) -> None:
    rows = make_rows(TILES)
    counts = Counter(assign_splits(rows, SplitParams(seed=seed)))
    shares = {split: counts[split] / len(rows) for split in ("train", "val", "test")}
    params = SplitParams()
    assert shares["val"] == pytest.approx(params.val, abs=0.08)
    assert shares["test"] == pytest.approx(params.test, abs=0.08)


def test_the_result_does_not_depend_on_the_order_and_not_on_a_few_more_images() -> None:
    rows, params = make_rows(TILES), SplitParams()
    assert few_group_splits(rows[::-1], params) == few_group_splits(rows, params)
    more = make_rows(TILES | {"t1": 10, "t5": 9})
    assert few_group_splits(more, params) == few_group_splits(rows, params)


def test_no_group_is_divided_and_no_split_is_empty() -> None:
    for number in range(3, 20):
        rows = make_rows({f"g{k}": 1 + k % 5 for k in range(number)})
        splits = assign_splits(rows, SplitParams())
        assert {"train", "val", "test"} == set(splits)
        assert len({(row["group"], split) for row, split in zip(rows, splits, strict=True)}) == number


def test_classes_are_in_every_split_if_groups_allow_it() -> None:
    classes = {"t1": [0, 1, 2], "t4": [0, 1, 2], "t6": [0, 1, 2]}
    rows = make_rows(TILES, classes)
    splits = few_group_splits(rows, SplitParams())
    assert {splits[group] for group in classes} == {"train", "val", "test"}


def test_what_cannot_be_balanced_is_said() -> None:
    rows = make_rows({"a": 90, "b": 5, "c": 5}, {"c": [0, 1, 3]})
    splits = assign_splits(rows, SplitParams())
    notes = imbalances(rows, splits, SplitParams())
    assert any(note.startswith("train has") for note in notes)
    assert sum("lacks class ids" in note for note in notes) == 2
    assert imbalances(make_rows(TILES), assign_splits(make_rows(TILES), SplitParams()), SplitParams()) == []


def test_given_splits_count() -> None:
    rows = make_rows({"a": 10, "b": 10, "c": 10})
    for row in rows[:10]:
        row["split"] = "test"
    splits = assign_splits(rows, SplitParams())
    assert set(splits[:10]) == {"test"}
    assert {"train", "val"} == set(splits[10:])


def test_twenty_groups_or_images_without_a_group_are_drawn_by_hash() -> None:
    assert not has_few_groups(make_rows({f"g{k}": 1 for k in range(20)}))
    assert not has_few_groups([*make_rows(TILES), make_rows({"": 1})[0]])
    assert not has_few_groups(make_rows({"only": 9}))

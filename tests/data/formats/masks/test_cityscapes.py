"""Cityscapes: label ids, train ids, instances, splits and cities."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segpipe.data.dataset import load_dataset
from tests.worlds.layouts import WIDTH, import_source, instances_of, items, mask_of, photo, save, values

TRAIN_IDS = {
    0: 255,
    1: 255,
    2: 255,
    3: 255,
    4: 255,
    5: 255,
    6: 255,
    7: 0,
    8: 1,
    9: 255,
    10: 255,
    11: 2,
    12: 3,
    13: 4,
    14: 255,
    15: 255,
    16: 255,
    17: 5,
    18: 255,
    19: 6,
    20: 7,
    21: 8,
    22: 9,
    23: 10,
    24: 11,
    25: 12,
    26: 13,
    27: 14,
    28: 15,
    29: 255,
    30: 255,
    31: 16,
    32: 17,
    33: 18,
}
"""The train id of each label id, as Cityscapes publishes them."""


def frame(source: Path, split: str, city: str, number: int, labels: dict[str, np.ndarray]) -> str:
    stem = f"{city}_{number:06d}_000019"
    photo(source / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", number)
    for kind, array in labels.items():
        save(source / "gtFine" / split / city / f"{stem}_gtFine_{kind}.png", array)
    return stem


def test_cityscapes(source: Path, data: Path) -> None:
    ids = values(1, [*TRAIN_IDS])
    instance_ids = ids.astype(np.uint16)
    instance_ids[5:9] = ids[5:9] * np.uint16(1000) + np.arange(WIDTH, dtype=np.uint16) % 3
    train = frame(source, "train", "aachen", 1, {"labelIds": ids, "instanceIds": instance_ids, "color": ids})
    train_ids = values(2, [0, 5, 18, 255])
    val = frame(source, "val", "munster", 2, {"labelTrainIds": train_ids})
    unlabelled = frame(source, "test", "berlin", 3, {})
    photo(source / "leftImg8bit" / "train_extra" / "bochum" / "bochum_1_leftImg8bit.png")
    report = import_source(source, data, unlabelled="keep")
    assert (report.format, report.images, report.masks, report.groups) == ("cityscapes", 3, 2, 3)
    assert report.skipped == [("leftImg8bit/train_extra/", "not a split with gtFine")]
    imported = items(data)
    assert {key: (item.group, item.split) for key, item in imported.items()} == {
        train: ("aachen", "train"),
        val: ("munster", "val"),
        unlabelled: ("berlin", "test"),
    }
    truth = np.vectorize(TRAIN_IDS.get)(ids)
    np.testing.assert_array_equal(mask_of(imported[train]), truth)
    np.testing.assert_array_equal(
        instances_of(imported[train]), np.where((instance_ids >= 1000) & (truth != 255), instance_ids, 0)
    )
    np.testing.assert_array_equal(mask_of(imported[val]), train_ids)
    assert imported[val].instances is None
    table = load_dataset(data).classes
    assert table.names[:3] + table.names[-2:] == ["road", "sidewalk", "building", "motorcycle", "bicycle"]
    assert [spec.value for spec in table.classes] == list(range(19))
    assert table.ignore == (255,)

"""Cityscapes: label ids, train ids, instances, splits and cities."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from segpipe.data.dataset import load_dataset
from tests.worlds.layouts import HEIGHT, WIDTH, import_source, instances_of, items, mask_of, photo, save, values

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


def write_polygons(
    source: Path, split: str, city: str, objects: list[dict], size: tuple[int, int] = (HEIGHT, WIDTH)
) -> None:
    stem = f"{city}_000001_000019"
    photo(source / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png")
    document = {"imgHeight": size[0], "imgWidth": size[1], "objects": objects}
    path = source / "gtFine" / split / city / f"{stem}_gtFine_polygons.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(document), encoding="utf-8-sig" if city == "bom" else "utf-8")


def box(label: str, x0: float, y0: float, x1: float, y1: float, **more: object) -> dict:
    return {"label": label, "polygon": [[x0, y0], [x1, y0], [x1, y1], [x0, y1]], **more}


def test_polygons_alone_are_drawn_in_their_order(source: Path, data: Path) -> None:
    objects = [
        box("road", 0, 0, WIDTH, HEIGHT),
        box("car", 2, 2, 8, 8),
        box("cargroup", 12, 2, 16, 6),
        box("static", 0, 10, 4, 14),
        box("sky", 1, 1, 20, 17, deleted=1),
        {"label": "road", "polygon": [[0, 0], [1, 1]]},
        {"label": "road", "polygon": [[0, 0], ["x", 1], [2, 2]]},
        {"polygon": []},
        box("ego vehicle", -5, 15, WIDTH + 9, HEIGHT + 9),
        box("person", 4, 4, 6, 6),
    ]
    write_polygons(source, "train", "ulm", objects)
    report = import_source(source, data)
    right = np.zeros((HEIGHT, WIDTH), np.uint8)
    right[2:8, 2:8] = right[2:6, 12:16] = 13
    right[10:14, 0:4] = right[15:] = 255
    right[4:6, 4:6] = 11
    item = next(iter(items(data).values()))
    np.testing.assert_array_equal(mask_of(item), right)
    ids = instances_of(item)
    assert [int((ids == k).sum()) for k in (1, 2)] == [32, 4]  # the car without the person, and the person
    assert ids.max() == 2
    assert (report.classes.names[0], report.classes.ignore, report.groups) == ("road", (255,), 1)
    assert "polygons that were deleted, left out: 1" in report.notes
    assert "polygons with fewer than three points or with invalid points, left out: 3" in report.notes


def test_labels_of_other_datasets_are_classes_of_their_own(source: Path, data: Path) -> None:
    write_polygons(
        source, "train", "0", [box("drivable fallback", 0, 0, WIDTH, HEIGHT), box("autorickshaw", 2, 2, 4, 4)]
    )
    write_polygons(source, "val", "1", [box("road", 0, 0, WIDTH, 9)])
    report = import_source(source, data)
    assert report.classes.names == ["autorickshaw", "drivable fallback", "road"]
    assert report.classes_from == "the labels of the polygons"
    masks = {item.group: mask_of(item) for item in items(data).values()}
    assert np.bincount(masks["0"].ravel()).tolist() == [4, HEIGHT * WIDTH - 4]
    assert (masks["1"] == 255).sum() == (HEIGHT - 9) * WIDTH  # what no polygon covers


@pytest.mark.parametrize(
    ("parents", "labels"),
    [
        (("", ""), "gtFine"),
        (("leftImg8bit_trainvaltest", "gtFine_trainvaltest"), "gtFine"),
        (("a", "b"), "gtCoarse"),
        (("c", "c"), "gtFine"),
    ],
)
def test_archives_side_by_side(source: Path, data: Path, parents: tuple[str, str], labels: str) -> None:
    photo(source / parents[0] / "leftImg8bit" / "train" / "ulm" / "ulm_1_leftImg8bit.png")
    save(source / parents[1] / labels / "train" / "ulm" / f"ulm_1_{labels}_labelIds.png", values(1, [7, 8]))
    report = import_source(source, data)
    assert (report.format, report.masks, report.groups) == ("cityscapes", 1, 1)


def test_broken_polygons_are_left_out(source: Path, data: Path) -> None:
    write_polygons(source, "train", "bom", [box("road", 0, 0, 9, 9)])
    write_polygons(source, "train", "other", [box("road", 0, 0, 9, 9)], size=(5, 5))
    write_polygons(source, "train", "broken", [])
    (source / "gtFine" / "train" / "broken" / "broken_000001_000019_gtFine_polygons.json").write_text('{"objects": 3}')
    report = import_source(source, data)
    assert report.masks == 1
    reasons = " ".join(reason for _, reason in report.skipped)
    assert "no list `objects`" in reasons
    assert "differs from that in its annotations" in reasons

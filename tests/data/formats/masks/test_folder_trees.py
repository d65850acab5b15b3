"""Layouts of their own trees: Cityscapes, a mask for each object, patients' slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segpipe.data.dataset import load_dataset

from tests.worlds.layouts import HEIGHT, WIDTH, bring, instances_of, items, mask_of, photo, save, values

# id: train id, as Cityscapes publishes them
OFFICIAL = {
    0: 255, 1: 255, 2: 255, 3: 255, 4: 255, 5: 255, 6: 255, 7: 0, 8: 1, 9: 255, 10: 255, 11: 2, 12: 3, 13: 4, 14: 255, 15: 255,
    16: 255, 17: 5, 18: 255, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 29: 255, 30: 255,
    31: 16, 32: 17, 33: 18,
}


def frame(source: Path, split: str, city: str, number: int, labels: dict[str, np.ndarray]) -> str:
    stem = f"{city}_{number:06d}_000019"
    photo(source / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", number)
    for kind, array in labels.items():
        save(source / "gtFine" / split / city / f"{stem}_gtFine_{kind}.png", array)
    return stem


def test_cityscapes(source: Path, data: Path) -> None:
    ids = values(1, [*OFFICIAL])
    objects = ids.astype(np.uint16)
    objects[5:9] = ids[5:9] * np.uint16(1000) + np.arange(WIDTH, dtype=np.uint16) % 3
    train = frame(source, "train", "aachen", 1, {"labelIds": ids, "instanceIds": objects, "color": ids})
    trained = values(2, [0, 5, 18, 255])
    val = frame(source, "val", "munster", 2, {"labelTrainIds": trained})
    bare = frame(source, "test", "berlin", 3, {})
    photo(source / "leftImg8bit" / "train_extra" / "bochum" / "bochum_1_leftImg8bit.png")
    report = bring(source, data)
    assert (report.format, report.images, report.masks, report.groups) == ("cityscapes", 3, 2, 3)
    assert report.skipped == [("leftImg8bit/train_extra/", "no split with gtFine")]
    found = items(data)
    assert {key: (item.group, item.split) for key, item in found.items()} == {
        train: ("aachen", "train"), val: ("munster", "val"), bare: ("berlin", "test")
    }
    truth = np.vectorize(OFFICIAL.get)(ids)
    np.testing.assert_array_equal(mask_of(found[train]), truth)
    np.testing.assert_array_equal(instances_of(found[train]), np.where((objects >= 1000) & (truth != 255), objects, 0))
    np.testing.assert_array_equal(mask_of(found[val]), trained)
    assert found[val].instances is None
    table = load_dataset(data).classes
    assert table.names[:3] + table.names[-2:] == ["road", "sidewalk", "building", "motorcycle", "bicycle"]
    assert [spec.value for spec in table.classes] == list(range(19))
    assert table.ignore == (255,)


def bowl(source: Path, name: str, *objects: tuple[slice, slice]) -> None:
    """An image with a mask file for each object, named so that their order is that of the arguments."""
    photo(source / name / "images" / f"{Path(name).name}.png")
    for index, at in enumerate(objects):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[at] = 255
        save(source / name / "masks" / f"{index:02d}.png", mask)


def test_a_mask_for_each_object(source: Path, data: Path) -> None:
    bowl(source, "id1", np.s_[0:2, 0:2], np.s_[4:14, 4:20], np.s_[12:16, 18:25])
    bowl(source, "id2", np.s_[3:4, 3:9])
    save(source / "id2" / "masks" / "blank.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    bowl(source, "id3", np.s_[0:1, 0:1])
    save(source / "id3" / "masks" / "99.png", np.full((HEIGHT, WIDTH + 2), 255, np.uint8))
    bowl(source, "id4", np.s_[0:1, 0:1])
    photo(source / "id4" / "images" / "second.png")
    report = bring(source, data, classes=["nucleus"])
    assert (report.format, report.images, report.masks) == ("mask-per-instance", 3, 2)
    assert report.classes.names == ["background", "nucleus"]
    assert report.skipped[0] == ("id4/images/", "2 images, expected one")
    assert "99.png: not the size of its image (found 27 x 18, expected 25 x 18)" in report.skipped[1][1]
    assert "pixels where objects overlap: the smaller object is kept: 4" in report.notes
    assert "masks without a pixel: 1" in report.notes
    expected = np.zeros((HEIGHT, WIDTH), int)
    expected[0:2, 0:2] = 1
    expected[4:14, 4:20] = 2
    expected[12:16, 18:25] = 3
    found = items(data)
    np.testing.assert_array_equal(instances_of(found["id1"]), expected)
    np.testing.assert_array_equal(mask_of(found["id1"]), expected > 0)
    assert np.unique(instances_of(found["id2"])).tolist() == [0, 1]
    assert found["id3"].mask is None


def test_stages_of_the_bowl(source: Path, data: Path) -> None:
    bowl(source, "stage1_train/id1", np.s_[0:2, 0:2])
    photo(source / "stage1_test" / "id2" / "images" / "id2.png")
    report = bring(source, data)
    assert (report.format, report.images) == ("mask-per-instance", 1)
    assert report.skipped == [("stage1_test/", "1 images, and not one mask")]


@pytest.mark.parametrize("inner", ["", "kaggle_3m", "lgg-mri-segmentation/kaggle_3m"])
def test_slices_of_patients(source: Path, data: Path, inner: str) -> None:
    truth = {}
    for patient in ("TCGA_CS_4941_19960909", "TCGA_DU_5849_19950405"):
        for number in (1, 2):
            stem = f"{patient}_{number}"
            photo(source / inner / patient / f"{stem}.tif")
            truth[stem] = values(number, [0, 255])
            save(source / inner / patient / f"{stem}_mask.tif", truth[stem])
    save(source / inner / patient / "lost_mask.tif", truth[stem])
    report = bring(source, data)
    assert (report.format, report.images, report.masks, report.groups) == ("lgg", 4, 4, 2)
    assert [(Path(name).name, reason) for name, reason in report.skipped] == [
        ("lost_mask.tif", "a mask without an image")
    ]
    assert [(spec.name, spec.value) for spec in report.classes.classes] == [("background", 0), ("abnormality", 255)]
    for key, item in items(data).items():
        assert item.group in ("TCGA_CS_4941", "TCGA_DU_5849")
        assert key.startswith(item.group)
        np.testing.assert_array_equal(mask_of(item), truth[key])

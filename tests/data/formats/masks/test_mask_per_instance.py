"""One folder per image, with one mask file per instance."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.worlds.layouts import HEIGHT, WIDTH, import_source, instances_of, items, mask_of, photo, save


def write_image(source: Path, name: str, *boxes: tuple[slice, slice]) -> None:
    """Write an image with one mask file per instance; the names of the files follow the order of the arguments."""
    photo(source / name / "images" / f"{Path(name).name}.png")
    for index, box in enumerate(boxes):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[box] = 255
        save(source / name / "masks" / f"{index:02d}.png", mask)


def test_one_mask_per_instance(source: Path, data: Path) -> None:
    write_image(source, "id1", np.s_[0:2, 0:2], np.s_[4:14, 4:20], np.s_[12:16, 18:25])
    write_image(source, "id2", np.s_[3:4, 3:9])
    save(source / "id2" / "masks" / "blank.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    write_image(source, "id3", np.s_[0:1, 0:1])
    save(source / "id3" / "masks" / "99.png", np.full((HEIGHT, WIDTH + 2), 255, np.uint8))
    write_image(source, "id4", np.s_[0:1, 0:1])
    photo(source / "id4" / "images" / "second.png")
    report = import_source(source, data, classes=["nucleus"], unlabelled="keep")
    assert (report.format, report.images, report.masks) == ("mask-per-instance", 3, 2)
    assert report.classes.names == ["background", "nucleus"]
    assert report.skipped[0] == ("id4/images/", "2 images, expected one")
    assert "99.png: not the size of its image (found 27 x 18, expected 25 x 18)" in report.skipped[1][1]
    assert "pixels where instances overlap: the smaller instance is kept: 4" in report.notes
    assert "masks without a set pixel: 1" in report.notes
    expected = np.zeros((HEIGHT, WIDTH), int)
    expected[0:2, 0:2] = 1
    expected[4:14, 4:20] = 2
    expected[12:16, 18:25] = 3
    imported = items(data)
    np.testing.assert_array_equal(instances_of(imported["id1"]), expected)
    np.testing.assert_array_equal(mask_of(imported["id1"]), expected > 0)
    assert np.unique(instances_of(imported["id2"])).tolist() == [0, 1]
    assert imported["id3"].mask is None


def test_stages_of_the_data_science_bowl(source: Path, data: Path) -> None:
    write_image(source, "stage1_train/id1", np.s_[0:2, 0:2])
    photo(source / "stage1_test" / "id2" / "images" / "id2.png")
    report = import_source(source, data)
    assert (report.format, report.images) == ("mask-per-instance", 1)
    assert report.skipped == [("stage1_test/", "1 images without any mask")]

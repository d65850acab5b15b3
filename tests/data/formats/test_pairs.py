"""Images and masks in two folders: names, splits, endings, links."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segpipe.errors import ConfigError, DataError
from tests.worlds.layouts import import_source, items, mask_of, photo, save, values

MASK = values(0, [0, 1, 2])


@pytest.mark.parametrize(
    ("image", "mask", "split"),
    [
        ("images/a.png", "masks/a.png", None),
        ("Imgs/a.jpg", "GT/a_gt.png", None),
        ("inputs/deep/a.png", "targets/deep/a.bmp", None),
        ("test/image/a.png", "test/label/a_label.tif", "test"),
        ("Validation/images/a.png", "Validation/groundtruth/a.png", "val"),
        ("images/testing/a.png", "masks/testing/a_seg.png", "test"),
        ("images/valid/x/a.png", "annotations/valid/x/a.png", "val"),
    ],
)
def test_folders_and_files_are_paired_by_name(
    source: Path, data: Path, image: str, mask: str, split: str | None
) -> None:
    photo(source / image)
    save(source / mask, MASK)
    report = import_source(source, data)
    assert (report.format, report.images, report.masks, report.skipped) == ("folder", 1, 1, [])
    assert report.splits == ({split: 1} if split else {})
    np.testing.assert_array_equal(mask_of(items(data)["a"]), MASK)


def test_a_folder_with_the_right_name_but_without_images_is_not_used(source: Path, data: Path) -> None:
    photo(source / "images" / "a.png")
    (source / "labels").mkdir()
    (source / "labels" / "a.txt").write_text("of something else")
    save(source / "gt" / "a.png", MASK)
    assert "images/ with gt/" in import_source(source, data).notes


def test_folders_that_the_user_names_inside_and_outside_the_source(source: Path, data: Path, tmp_path: Path) -> None:
    photo(source / "scans" / "a_7.png")
    save(tmp_path / "elsewhere" / "drawn" / "a_7_L.png", MASK)
    with pytest.raises(DataError, match="no layout fits"):
        import_source(source, data)
    read = {"images": "scans", "masks": str(tmp_path / "elsewhere" / "drawn"), "suffix": "_L"}
    report = import_source(source, data, read=read)
    assert (report.format, report.masks) == ("folder", 1)
    assert "scans/ with elsewhere/drawn/" in report.notes
    np.testing.assert_array_equal(mask_of(items(data)["a_7"]), MASK)
    with pytest.raises(ConfigError, match=r"no mask has this suffix.*_R and the mask a_7_L.*called a_7_R"):
        import_source(source, data, read=read | {"suffix": "_R"}, replace=True)
    with pytest.raises(ConfigError, match=r"nowhere: is not a folder.*--masks"):
        import_source(source, data, "folder", read=read | {"masks": "nowhere"})
    with pytest.raises(ConfigError, match=r"no folder of masks.*--masks DIR"):
        import_source(source, data, "folder", read={"images": "scans"})


def test_the_error_of_an_unrecognised_source_says_what_is_missing(source: Path, data: Path) -> None:
    photo(source / "images" / "a.png")
    with pytest.raises(DataError, match=r"no folder of masks .expected masks/ next to images/"):
        import_source(source, data)
    (source / "masks").mkdir()
    with pytest.raises(DataError, match=r"no mask has the name of an image.*images/a.png and no image file in masks/"):
        import_source(source, data)
    save(source / "masks" / "b.png", MASK)
    for format in ("auto", "folder"):
        with pytest.raises(
            DataError,
            match=r"no mask has the name of an image.*found images/a.png and masks/b.png.*called a or a_mask.*--suffix",
        ):
            import_source(source, data, format)
    with pytest.raises(DataError, match=r"no layout fits.*Fix: give the folder that it is a part of .*source\)"):
        import_source(source / "images", data)
    with pytest.raises(ConfigError, match=r"no such format.*found coko.*did you mean `coco`"):
        import_source(source, data, "coko")


def test_one_folder_for_images_and_masks(source: Path, data: Path) -> None:
    for name in ("a", "b"):
        photo(source / f"{name}_sat.png")
        save(source / f"{name}_sat_mask.png", MASK)
    photo(source / "c.png")
    report = import_source(
        source, data, "folder", read={"images": ".", "masks": ".", "suffix": "_mask"}, unlabelled="keep"
    )
    assert (report.images, report.masks, report.skipped) == (3, 2, [])
    assert items(data)["c"].mask is None


def test_two_files_with_one_name_are_left_out_and_reported(source: Path, data: Path) -> None:
    for name in ("a.png", "b.png", "b.jpg"):
        photo(source / "images" / name)
    for name in "ab":
        save(source / "masks" / f"{name}.png", MASK)
    report = import_source(source, data)
    assert [*items(data)] == ["a"]
    assert ("images/b.jpg", "two files with one name (b.jpg and b.png): keep one of them") in report.skipped
    assert ("masks/b.png", "a mask without an image") in report.skipped


def test_links_are_followed_and_loops_are_an_error(source: Path, data: Path, tmp_path: Path) -> None:
    photo(tmp_path / "far" / "a.png")
    save(source / "masks" / "more" / "a.png", MASK)
    (source / "images").mkdir()
    (source / "images" / "more").symlink_to(tmp_path / "far", target_is_directory=True)
    assert import_source(source, data).masks == 1
    (tmp_path / "far" / "back").symlink_to(source / "images", target_is_directory=True)
    with pytest.raises(DataError, match=r"back.*leads back"):
        import_source(source, data, "folder", replace=True)


def test_unusual_file_names(source: Path, data: Path) -> None:
    names = ["größe 1", "日本", "a'b\"c;$(x)", "x.y.z", "-rf"]
    for index, name in enumerate(names):
        photo(source / "images" / f"{name}.png", index)
        save(source / "masks" / f"{name}.png", values(index, [0, 1]))
    report = import_source(source, data)
    assert report.masks == len(names)
    assert sorted(items(data)) == sorted(["größe_1", "日本", "a_b_c_x_", "x.y.z", "-rf"])


def test_instances_are_imported_too(source: Path, data: Path) -> None:
    ids = values(3, [0, 5, 700], np.uint16)
    photo(source / "train" / "images" / "a.png")
    save(source / "train" / "masks" / "a.png", MASK)
    save(source / "train" / "instances" / "a.png", ids)
    import_source(source, data, "folder")
    path = items(data)["a"].instances
    assert path is not None
    assert path.read_bytes() == (source / "train" / "instances" / "a.png").read_bytes()

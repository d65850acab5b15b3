"""Where several datasets, folders, files or masks would do, none of them is silently taken for the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segpipe.data.formats.annotations.coco import read_coco
from segpipe.data.formats.source import ReadOptions
from segpipe.errors import ConfigError, DataError

from tests.worlds.layouts import bring, items, photo, save, values
from tests.data.formats.annotations.test_coco import document
from tests.data.formats.annotations.test_coco import put as put_coco
from tests.data.formats.annotations.test_labelme import put as put_labelme
from tests.data.formats.annotations.test_labelme import square

MASK = values(0, [0, 1, 2])


def pair(folder: Path, image: str = "images/a.png", mask: str = "masks/a.png") -> None:
    photo(folder / image)
    save(folder / mask, MASK)


def coco(folder: Path) -> None:
    photo(folder / "a.png")
    put_coco(folder / "instances.json", document("a.png"))


def test_a_coco_file_in_one_of_several_datasets(source: Path, data: Path) -> None:
    coco(source / "cells")
    pair(source / "streets")
    with pytest.raises(
        DataError, match=r"several datasets lie below.*found cells, streets.*import one of them .*/cells"
    ):
        bring(source, data)
    assert not data.exists()
    assert bring(source, data, "coco").images == 1, "named, it is read as such"


def test_several_datasets_of_one_layout(source: Path, data: Path) -> None:
    coco(source / "a")
    coco(source / "b")
    with pytest.raises(DataError, match=r"several datasets lie below.*found a, b,"):
        bring(source, data)
    with pytest.raises(DataError, match=r"folders of several datasets.*found a, b\).*import one of them .*/a\)"):
        bring(source, data, "coco")
    assert bring(source / "a", data).images == 1


def test_the_only_dataset_below_comes_in(source: Path, data: Path) -> None:
    coco(source / "cells")
    (source / "papers").mkdir()
    assert bring(source, data).recognised == "cells/instances.json with `images`, `annotations`, `categories`"


def test_parts_of_one_dataset_are_no_datasets(source: Path, data: Path) -> None:
    for split in ("train2017", "valid"):
        photo(source / split / f"{split}.png")
        put_coco(source / split / "_annotations.coco.json", document(f"{split}.png"))
    assert bring(source, data).splits == {"train": 1, "val": 1}


def test_datasets_below_a_folder_that_is_none(source: Path, data: Path) -> None:
    for name in ("dataset1", "dataset2"):
        pair(source / name)
        pair(source / name, "images/b.png", "masks/b.png")
    with pytest.raises(
        DataError, match=r"no dataset itself.*found dataset1, dataset2\).*import one of them: .*dataset1"
    ):
        bring(source, data)


def test_labelme_files_are_taken_together_but_not_beside_others(source: Path, data: Path) -> None:
    for folder in ("monday", "tuesday"):
        put_labelme(source / folder / f"{folder}.json", [square("cell", 1, 1, 4)])
    report = bring(source, data)
    assert report.images == 2
    assert "taken together: monday, tuesday" in report.notes
    pair(source / "exported")
    with pytest.raises(DataError, match=r"several datasets.*exported, monday, tuesday"):
        bring(source, data, replace=True)


def test_one_small_dataset_of_many_is_no_folder_of_objects(source: Path, data: Path) -> None:
    pair(source / "small")
    for name in ("large", "larger"):
        for image in "ab":
            pair(source / name, f"images/{image}.png", f"masks/{image}.png")
    with pytest.raises(DataError, match=r"no dataset itself.*large, larger, small"):
        bring(source, data)


@pytest.mark.parametrize(
    ("other", "option"), [("labels/a.png", "--masks masks"), ("imgs/a.png", "--images images")]
)
def test_several_folders_of_one_role(source: Path, data: Path, other: str, option: str) -> None:
    pair(source)
    save(source / other, MASK)
    with pytest.raises(DataError, match=rf"several folders could be.*{other.split('/')[0]}.*{option}"):
        bring(source, data)
    name, folder = option.removeprefix("--").split()
    assert bring(source, data, "folder", read={name: folder}).masks == 1


def test_a_folder_of_masks_alone_may_be_named(source: Path, data: Path) -> None:
    pair(source)
    save(source / "labels" / "a.png", values(1, [0, 1, 2, 3]))
    assert "images/ with labels/" in bring(source, data, read={"masks": "labels"}).notes


def test_two_masks_of_one_image(source: Path, data: Path) -> None:
    pair(source)
    for name in ("b", "b_label"):  # two images, not a mask with another ending
        pair(source, f"images/{name}.png", f"masks/{name}.png")
    save(source / "masks" / "a_mask.png", values(1, [0, 1, 2]))
    report = bring(source, data)
    assert ("masks/a.png", "two masks of one image (a.png and a_mask.png): say which (--suffix)") in report.skipped
    assert {key: item.mask is not None for key, item in items(data).items()} == {"a": False, "b": True, "b_label": True}
    assert bring(source, data, "folder", read={"suffix": ""}, replace=True).masks == 3


@pytest.mark.parametrize(
    "names", [("cells.json", "nuclei.json"), ("all.json", "train.json"), ("train.json", "train_2.json")]
)
def test_annotation_files_that_list_the_same_image(source: Path, names: tuple[str, str]) -> None:
    photo(source / "a.png")
    for name in names:
        put_coco(source / name, document("a.png"))
    with pytest.raises(
        DataError, match=rf"{names[1]}: two annotation files list.*as in {names[0]}.*--masks {names[1]}"
    ):
        read_coco(source, ReadOptions())
    assert len(read_coco(source, ReadOptions(masks=names[1])).items) == 1


def test_annotations_in_the_source_itself_come_first(source: Path) -> None:
    coco(source)
    put_coco(source / "old" / "instances.json", document("a.png", "b.png"))
    assert [item.name for item in read_coco(source, ReadOptions()).items] == ["a"]


def test_several_palettes(source: Path, data: Path) -> None:
    photo(source / "images" / "a.png")
    save(source / "masks" / "a.png", MASK[..., None] * np.array([0, 1, 2], np.uint8))
    for name in ("palette.csv", "labelmap.txt"):
        (source / name).write_text("a,0,0,0\nb,0,1,2\nc,0,2,4\n")
    with pytest.raises(ConfigError, match=r"several palettes.*labelmap.txt, palette.csv.*--palette .*labelmap.txt"):
        bring(source, data)
    assert bring(source, data, read={"palette": str(source / "palette.csv")}).masks == 1

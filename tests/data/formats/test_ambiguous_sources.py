"""If several datasets, folders, files or masks could be meant, none of them is chosen silently."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segpipe.data.formats.annotations.coco import read_coco
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import ReadOptions
from segpipe.errors import ConfigError, DataError
from tests.data.formats.annotations.test_coco import document, write_json
from tests.data.formats.annotations.test_labelme import square, write_labelme
from tests.worlds.layouts import import_source, items, photo, save, values

MASK = values(0, [0, 1, 2])


def write_pair(folder: Path, image: str = "images/a.png", mask: str = "masks/a.png") -> None:
    photo(folder / image)
    save(folder / mask, MASK)


def write_coco(folder: Path) -> None:
    photo(folder / "a.png")
    write_json(folder / "instances.json", document("a.png"))


def test_a_coco_file_in_one_of_several_datasets(source: Path, data: Path) -> None:
    write_coco(source / "cells")
    write_pair(source / "streets")
    with pytest.raises(
        DataError, match=r"several datasets lie below.*found cells, streets.*import one of them .*/cells"
    ):
        import_source(source, data)
    assert not data.exists()
    assert import_source(source, data, "coco").images == 1, "a named layout is read"


def test_several_datasets_of_one_layout(source: Path, data: Path) -> None:
    write_coco(source / "a")
    write_coco(source / "b")
    with pytest.raises(DataError, match=r"several datasets lie below.*found a, b,"):
        import_source(source, data)
    with pytest.raises(DataError, match=r"folders of several datasets.*found a, b\).*import one of them .*/a\)"):
        import_source(source, data, "coco")
    assert import_source(source / "a", data).images == 1


def test_the_only_dataset_below_is_imported(source: Path, data: Path) -> None:
    write_coco(source / "cells")
    (source / "papers").mkdir()
    assert import_source(source, data).recognised == "cells/instances.json with `images`, `annotations`, `categories`"


def test_parts_of_one_dataset_are_not_datasets(source: Path, data: Path) -> None:
    for split in ("train2017", "valid"):
        photo(source / split / f"{split}.png")
        write_json(source / split / "_annotations.coco.json", document(f"{split}.png"))
    assert import_source(source, data).splits == {"train": 1, "val": 1}


def test_datasets_below_a_folder_that_is_not_a_dataset(source: Path, data: Path) -> None:
    for name in ("dataset1", "dataset2"):
        write_pair(source / name)
        write_pair(source / name, "images/b.png", "masks/b.png")
    with pytest.raises(
        DataError, match=r"not a dataset itself.*found dataset1, dataset2\).*import one of them: .*dataset1"
    ):
        import_source(source, data)


def test_labelme_folders_are_imported_together_but_not_with_other_datasets(source: Path, data: Path) -> None:
    for folder in ("monday", "tuesday"):
        write_labelme(source / folder / f"{folder}.json", [square("cell", 1, 1, 4)])
    report = import_source(source, data)
    assert report.images == 2
    assert "several folders imported together: monday, tuesday" in report.notes
    write_pair(source / "exported")
    with pytest.raises(DataError, match=r"several datasets.*exported, monday, tuesday"):
        import_source(source, data, replace=True)


def test_a_dataset_of_one_image_among_others_is_not_a_folder_of_instances(source: Path, data: Path) -> None:
    write_pair(source / "small")
    for name in ("large", "larger"):
        for image in "ab":
            write_pair(source / name, f"images/{image}.png", f"masks/{image}.png")
    with pytest.raises(DataError, match=r"several datasets lie below.*large, larger, small"):
        import_source(source, data)


@pytest.mark.parametrize(
    ("other", "option", "words"),
    [
        ("labels/a.png", "--masks masks", "more than one reading fits.*--masks labels.* or .*--masks masks"),
        ("imgs/a.png", "--images images", "several folders could be.*imgs.*--images images"),
    ],
)
def test_several_folders_with_the_same_role(source: Path, data: Path, other: str, option: str, words: str) -> None:
    write_pair(source)
    save(source / other, MASK)
    with pytest.raises(DataError, match=words):
        import_source(source, data)
    name, folder = option.removeprefix("--").split()
    assert import_source(source, data, "folder", read={name: folder}).masks == 1


def test_a_folder_of_masks_alone_may_be_named(source: Path, data: Path) -> None:
    write_pair(source)
    save(source / "labels" / "a.png", values(1, [0, 1, 2, 3]))
    assert "images/ with labels/" in import_source(source, data, read={"masks": "labels"}).notes


def test_two_masks_for_one_image(source: Path, data: Path) -> None:
    write_pair(source)
    for name in ("b", "b_label"):  # two images; b_label is not a mask of b
        write_pair(source, f"images/{name}.png", f"masks/{name}.png")
    save(source / "masks" / "a_mask.png", values(1, [0, 1, 2]))
    report = import_source(source, data, unlabelled="keep")
    assert ("masks/a.png", "two masks for one image (a.png and a_mask.png): choose one with --suffix") in report.skipped
    assert {key: item.mask is not None for key, item in items(data).items()} == {"a": False, "b": True, "b_label": True}
    assert import_source(source, data, "folder", read={"suffix": ""}, replace=True).masks == 3


@pytest.mark.parametrize(
    "names", [("cells.json", "nuclei.json"), ("all.json", "train.json"), ("train.json", "train_2.json")]
)
def test_annotation_files_that_list_the_same_image(source: Path, names: tuple[str, str]) -> None:
    photo(source / "a.png")
    for name in names:
        write_json(source / name, document("a.png"))
    with pytest.raises(
        DataError, match=rf"{names[1]}: two annotation files list.*as in {names[0]}.*--masks {names[1]}"
    ):
        read_coco(SourceProbe(source), ReadOptions())
    assert len(read_coco(SourceProbe(source), ReadOptions(masks=names[1])).items) == 1


def test_annotations_in_the_source_itself_come_first(source: Path) -> None:
    write_coco(source)
    write_json(source / "old" / "instances.json", document("a.png", "b.png"))
    assert [item.name for item in read_coco(SourceProbe(source), ReadOptions()).items] == ["a"]


def test_several_palettes(source: Path, data: Path) -> None:
    photo(source / "images" / "a.png")
    save(source / "masks" / "a.png", MASK[..., None] * np.array([0, 1, 2], np.uint8))
    for name in ("palette.csv", "labelmap.txt"):
        (source / name).write_text("a,0,0,0\nb,0,1,2\nc,0,2,4\n")
    with pytest.raises(ConfigError, match=r"several palettes.*labelmap.txt, palette.csv.*--palette .*labelmap.txt"):
        import_source(source, data)
    assert import_source(source, data, read={"palette": str(source / "palette.csv")}).masks == 1

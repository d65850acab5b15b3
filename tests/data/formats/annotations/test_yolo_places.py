"""Label files of YOLO are found where its users put them; a dataset without any is an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from segpipe.errors import DataError
from tests.worlds.layouts import HEIGHT, WIDTH, import_source, items, mask_of, photo, save, values

LINE = "0 0.2 0.25 0.8 0.25 0.8 0.75 0.2 0.75\n"


def write(source: Path, images: str, labels: str, settings: str) -> None:
    for name in ("a", "b", "c"):
        photo(source / images / f"{name}.png", ord(name))
        path = source / labels / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(LINE)
    (source / "data.yaml").write_text(settings)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("images/train", "labels/train"),
        ("Images/train", "Labels/train"),
        ("IMAGES/train", "labels/train"),
        ("train", "train"),
        ("images/train", "images/train"),
    ],
)
def test_labels_are_found(source: Path, data: Path, images: str, labels: str) -> None:
    write(source, images, labels, f"train: {images}\nnames: [cell]\n")
    report = import_source(source, data)
    assert (report.format, report.masks) == ("yolo-seg", 3)
    assert not any("without a label file" in note for note in report.notes)
    for item in items(data).values():
        assert mask_of(item).sum() == pytest.approx(0.6 * WIDTH * 0.5 * HEIGHT, rel=0.1)
    assert report.unused == []


def test_labels_beside_a_link_to_the_image(source: Path, data: Path) -> None:
    write(source, "images/train", "labels/train", "train: images/train\nnames: [cell]\n")
    (source / "all").mkdir()
    for name in ("a", "b", "c"):
        link = source / "images" / "train" / f"{name}.png"
        link.rename(source / "all" / f"{name}.png")
        link.symlink_to(f"../../all/{name}.png")
    report = import_source(source, data)
    assert report.masks == 3
    assert all(mask_of(item).any() for item in items(data).values())


def test_no_labels_at_all_is_an_error_and_its_advice_works(source: Path, data: Path) -> None:
    write(source, "images/train", "elsewhere", "train: images/train\nnames: [cell]\n")
    with pytest.raises(DataError, match=r"none of them has a label file.*add the folder of labels.*--masks DIR"):
        import_source(source, data)
    for name in ("a", "b", "c"):
        save(source / "drawn" / f"{name}.png", values(1, [0, 1]))
    read = {"masks": "drawn", "images": "images/train"}
    assert import_source(source, data, read=read).masks == 3
    (source / "elsewhere").rename(source / "labels")
    (source / "labels" / "train").mkdir()
    for name in ("a", "b", "c"):
        (source / "labels" / f"{name}.txt").rename(source / "labels" / "train" / f"{name}.txt")
    assert import_source(source, data, replace=True).format == "yolo-seg"


def test_a_yaml_of_yolo_beside_masks_is_not_a_yolo_dataset(source: Path, data: Path) -> None:
    for name in ("a", "b", "c"):
        photo(source / "images" / f"{name}.png")
        save(source / "masks" / f"{name}.png", values(1, [0, 1]))
    (source / "dataset.yaml").write_text("path: /data/x\ntrain: images\nval: images\nnames: {0: leaf}\n")
    assert import_source(source, data).format == "folder"

"""Label files of YOLO are found where its users put them; a dataset without any is an error."""

from __future__ import annotations

import subprocess
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


@pytest.mark.parametrize("by_prefix", [False, True])
def test_an_export_of_label_studio(source: Path, data: Path, by_prefix: bool) -> None:
    """Its label files have the prefix of uploads; the user's own images do not."""
    (source / "labels").mkdir(parents=True)
    for name in ("a", "b"):
        photo(source / "images" / f"{name}.png", ord(name))
        (source / "labels" / f"{'a1b2c3d4-' if by_prefix else ''}{name}.txt").write_text(LINE)
    (source / "classes.txt").write_text("cell\nnucleus\n")
    (source / "notes.json").write_text('{"categories": [{"id": 0, "name": "cell"}, {"id": 1, "name": "nucleus"}]}')
    report = import_source(source, data)
    assert (report.format, report.masks, report.unused) == ("yolo-seg", 2, [])
    assert report.classes.names == ["background", "cell", "nucleus"]
    assert all(mask_of(item).any() for item in items(data).values())


def test_a_label_file_with_a_prefix_belongs_to_the_image_with_the_whole_name(source: Path, data: Path) -> None:
    (source / "labels").mkdir(parents=True)
    for name in ("a", "a1b2c3d4-a"):
        photo(source / "images" / f"{name}.png", len(name))
    (source / "labels" / "a1b2c3d4-a.txt").write_text(LINE)
    (source / "classes.txt").write_text("cell\n")
    report = import_source(source, data)
    assert {key: bool(mask_of(item).any()) for key, item in items(data).items()} == {"a": False, "a1b2c3d4-a": True}
    assert "images without a label file, imported without instances: 1" in report.notes


def test_links_to_images_that_were_saved_as_text(source: Path, data: Path) -> None:
    write(source, "images/train", "labels/train", "train: images/train\nnames: [cell]\n")
    for name in ("a", "b", "c"):
        (source / "images" / "train" / f"{name}.png").write_text(f"../../all/{name}.png")
    with pytest.raises(
        DataError, match=r"is a link that was saved as a text file.*\.\./\.\./all/a\.png.*core\.symlinks"
    ):
        import_source(source, data)


def test_links_to_images_outside_the_source_and_the_advice(source: Path, data: Path, tmp_path: Path) -> None:
    write(source, "images/train", "labels/train", "train: images/train\nnames: [cell]\n")
    for name in ("a", "b", "c"):
        link = source / "images" / "train" / f"{name}.png"
        link.rename(tmp_path / f"{name}.png")
        link.symlink_to(tmp_path / f"{name}.png")
    with pytest.raises(
        DataError, match=r"images/train/a\.png: is a link that leads out of the source.*cp -rL SRC COPY"
    ):
        import_source(source, data)
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-rL", source, copy], check=True)
    report = import_source(copy, data)
    assert (report.masks, report.unused) == (3, [])


def test_images_with_boxes_among_outlines_are_counted(source: Path, data: Path) -> None:
    write(source, "images/train", "labels/train", "train: images/train\nnames: [cell]\n")
    (source / "labels" / "train" / "a.txt").write_text(LINE + "0 0.5 0.5 0.1 0.1\n")
    report = import_source(source, data)
    assert [name for name, _ in report.skipped] == ["labels/train/a.txt:2"]
    assert any(note.endswith("the pixels of these annotations are background: 1") for note in report.notes)

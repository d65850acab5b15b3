"""YOLO segmentation: data.yaml as tools write it, label files, and broken ones."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from segpipe.data.formats.annotations.painter import CLIPPED
from segpipe.data.formats.annotations.yolo_seg import read_yolo_seg, recognise_yolo_seg
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import ReadOptions
from segpipe.errors import DataError
from tests.worlds.layouts import HEIGHT, WIDTH, import_source, instances_of, items, mask_of, photo

SETTINGS = {"names": ["cell", "nucleus"], "train": "images/train", "val": "images/val"}


def square(class_id: object, x: int, y: int, edge: int) -> str:
    """Return the line of a square with corners on pixel edges."""
    corners = [(x, y), (x + edge, y), (x + edge, y + edge), (x, y + edge)]
    return f"{class_id} " + " ".join(f"{a / WIDTH:.8f} {b / HEIGHT:.8f}" for a, b in corners)


def write_source(source: Path, labels: str = "", **settings: Any) -> Path:
    """Write two images, one in train and one in val; the first has these labels."""
    photo(source / "images" / "train" / "a.png")
    photo(source / "images" / "val" / "b.png")
    for name, text in (("train/a", labels), ("val/b", square(0, 1, 1, 3))):
        path = source / "labels" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (source / "data.yaml").write_text(yaml.safe_dump({**SETTINGS, **settings}))
    return source


def test_polygons_and_classes(source: Path, data: Path) -> None:
    write_source(source, f"{square(0, 1, 2, 5)}\n\n{square('1.0', 10, 4, 7)}\n")
    report = import_source(source, data, "yolo-seg")
    assert [(c.name, c.value) for c in report.classes.classes] == [("background", 0), ("cell", 1), ("nucleus", 2)]
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[2:7, 1:6] = 1
    expected[4:11, 10:17] = 2
    assert np.array_equal(mask_of(items(data)["a"]), expected)
    assert np.array_equal(instances_of(items(data)["a"]), expected)
    assert items(data)["b"].split == "val"
    assert report.skipped == []
    assert recognise_yolo_seg(SourceProbe(source)) == "data.yaml with `names` and the folders of train, val"


@pytest.mark.parametrize(
    "settings",
    [
        {"names": {0: "cell", 1: "nucleus"}},
        {"path": "."},
        {"train": "../images/train", "val": "../images/val"},
        {"path": "/home/somebody/dataset", "train": "images/train"},
        {"train": "/home/somebody/dataset/images/train"},
        {"train": "C:\\data\\images\\train"},
        {"train": ["images/train"], "val": "val.txt"},
        {"train": "train.txt"},
    ],
)
def test_variants_of_data_yaml(source: Path, settings: dict[str, Any]) -> None:
    write_source(source, square(0, 1, 2, 5), **settings)
    (source / "train.txt").write_text("./images/train/a.png\n\n")
    (source / "val.txt").write_text("images/val/b.png\n")
    result = read_yolo_seg(SourceProbe(source), ReadOptions())
    assert [(item.image.name, item.split) for item in result.items] == [("a.png", "train"), ("b.png", "val")]
    assert all(item.draw and (item.draw(HEIGHT, WIDTH).mask > 0).any() for item in result.items)


def test_the_layout_of_roboflow(source: Path) -> None:
    for split in ("train", "valid"):
        photo(source / split / "images" / f"{split}.jpg.rf.0.png")
        (source / split / "labels").mkdir()
        (source / split / "labels" / f"{split}.jpg.rf.0.txt").write_text(square(1, 1, 1, 4))
    (source / "data.yaml").write_text(
        yaml.safe_dump({"names": ["a", "b"], "train": "../train/images", "val": "../valid/images"})
    )
    result = read_yolo_seg(SourceProbe(source), ReadOptions())
    assert [item.split for item in result.items] == ["train", "val"]
    assert [(item.draw(HEIGHT, WIDTH).mask == 2).sum() for item in result.items if item.draw] == [16, 16]


BROKEN_LINES = {
    "a box": ("0 0.5 0.5 0.2 0.2", "is a box, not an outline"),
    "two points": ("0 0.1 0.1 0.2 0.2 ", "is a box"),
    "one point": ("0 0.1 0.1", "fewer than 3 points"),
    "odd number of coordinates": ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "odd number of coordinates"),
    "no class": ("9 0.1 0.1 0.2 0.2 0.3 0.1", "has no valid class"),
    "half a class": ("0.5 0.1 0.1 0.2 0.2 0.3 0.1", "has no valid class"),
    "words": ("cell 0.1 0.1 0.2 0.2 0.3 0.1", "not a line of numbers"),
    "NaN": ("0 nan 0.1 0.2 0.2 0.3 0.1", "NaN or infinite"),
    "pixels": ("0 10 10 20 20 30 10", "not fractions of the image"),
    "outside": ("0 1.1 0.1 1.2 0.2 1.3 0.1", "outside its image"),
}


@pytest.mark.parametrize("fault", BROKEN_LINES)
def test_a_broken_line_is_left_out(source: Path, fault: str) -> None:
    text, reason = BROKEN_LINES[fault]
    result = read_yolo_seg(SourceProbe(write_source(source, f"{square(0, 1, 2, 5)}\n{text}\n")), ReadOptions())
    ((name, message),) = result.skipped
    assert name == "labels/train/a.txt:2"
    assert re.search(reason, message)
    first = result.items[0]
    assert first.draw is not None
    assert (first.draw(HEIGHT, WIDTH).mask > 0).sum() == 25


def test_labels_that_are_all_boxes(source: Path) -> None:
    write_source(source, "0 0.5 0.5 0.2 0.2")
    (source / "labels" / "val" / "b.txt").write_text("1 0.5 0.5 0.2 0.2")
    with pytest.raises(DataError, match=r"boxes, not outlines.*labels/train/a\.txt:1"):
        read_yolo_seg(SourceProbe(source), ReadOptions())


def test_an_image_without_labels_has_no_instances_and_is_reported(source: Path) -> None:
    write_source(source)
    (source / "labels" / "train" / "a.txt").unlink()
    (source / "labels" / "val" / "b.txt").write_text(square(0, -1, -1, 3))
    result = read_yolo_seg(SourceProbe(source), ReadOptions())
    assert "images without a label file, imported without instances: 1" in result.notes
    assert f"{CLIPPED}: 1" in result.notes
    assert [(i.draw(HEIGHT, WIDTH).mask > 0).sum() for i in result.items if i.draw] == [0, 4]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("names: [", "not valid YAML"),
        ("[1, 2]", "holds no settings"),
        ("names: 7\ntrain: images/train", "names of the classes cannot be read"),
        ("names: {a: 1}\ntrain: images/train", "names of the classes cannot be read"),
        ("names: [[a]]\ntrain: images/train", "names of the classes cannot be read"),
    ],
)
def test_broken_settings(source: Path, content: str, reason: str) -> None:
    write_source(source)
    (source / "data.yaml").write_text(content)
    with pytest.raises(DataError, match=reason) as error:
        read_yolo_seg(SourceProbe(source), ReadOptions())
    assert "data.yaml" in str(error.value)


def test_paths_do_not_lead_out_of_the_source(source: Path, tmp_path: Path) -> None:
    photo(tmp_path / "other" / "images" / "secret.png")
    write_source(source, square(0, 1, 2, 5), val=str(tmp_path / "other" / "images"), test="../other")
    (source / "images" / "train" / "link.png").symlink_to(tmp_path / "other" / "images" / "secret.png")
    (source / "list.txt").write_text("/etc/passwd\n../other/images/secret.png\nmissing.png\n")
    settings = yaml.safe_load((source / "data.yaml").read_text())
    (source / "data.yaml").write_text(yaml.safe_dump({**settings, "val": ["list.txt", "images/val"]}))
    result = read_yolo_seg(SourceProbe(source), ReadOptions())
    assert {item.image.name for item in result.items} == {"a.png", "b.png"}
    skipped = dict(result.skipped)
    assert "outside its folder" in skipped["list.txt:1"]
    assert "outside its folder" in skipped["list.txt:2"]
    assert "names a missing image" in skipped["list.txt:3"]
    assert "../other" in skipped


def test_a_source_without_data_yaml(source: Path) -> None:
    assert recognise_yolo_seg(SourceProbe(source)) is None
    with pytest.raises(DataError, match=r"no data\.yaml.*--format"):
        read_yolo_seg(SourceProbe(source), ReadOptions())

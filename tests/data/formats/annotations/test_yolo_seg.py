"""YOLO segmentation: data.yaml as tools write it, label lines, and their faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from segpipe.data.formats.annotations.painter import CLIPPED
from segpipe.data.formats.source import ReadOptions
from segpipe.data.formats.annotations.yolo_seg import read_yolo_seg, recognise_yolo_seg
from segpipe.errors import DataError

from tests.worlds.layouts import HEIGHT, WIDTH, bring, instances_of, items, mask_of, photo

SETTINGS = {"names": ["cell", "nucleus"], "train": "images/train", "val": "images/val"}


def line(number: object, x: int, y: int, edge: int) -> str:
    """A square with corners on pixel edges."""
    corners = [(x, y), (x + edge, y), (x + edge, y + edge), (x, y + edge)]
    return f"{number} " + " ".join(f"{a / WIDTH:.8f} {b / HEIGHT:.8f}" for a, b in corners)


def lay_out(source: Path, labels: str = "", **settings: Any) -> Path:
    """Two images, one in train and one in val; the first has these labels."""
    photo(source / "images" / "train" / "a.png")
    photo(source / "images" / "val" / "b.png")
    for name, text in (("train/a", labels), ("val/b", line(0, 1, 1, 3))):
        path = source / "labels" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (source / "data.yaml").write_text(yaml.safe_dump({**SETTINGS, **settings}))
    return source


def test_polygons_and_classes(source: Path, data: Path) -> None:
    lay_out(source, f"{line(0, 1, 2, 5)}\n\n{line('1.0', 10, 4, 7)}\n")
    report = bring(source, data, "yolo-seg")
    assert [(c.name, c.value) for c in report.classes.classes] == [("background", 0), ("cell", 1), ("nucleus", 2)]
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[2:7, 1:6] = 1
    expected[4:11, 10:17] = 2
    assert np.array_equal(mask_of(items(data)["a"]), expected)
    assert np.array_equal(instances_of(items(data)["a"]), expected)
    assert items(data)["b"].split == "val"
    assert report.skipped == []
    assert recognise_yolo_seg(source) == "data.yaml with `names` and the folders of train, val"


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
def test_what_data_yaml_may_say(source: Path, settings: dict[str, Any]) -> None:
    lay_out(source, line(0, 1, 2, 5), **settings)
    (source / "train.txt").write_text("./images/train/a.png\n\n")
    (source / "val.txt").write_text("images/val/b.png\n")
    found = read_yolo_seg(source, ReadOptions())
    assert [(item.image.name, item.split) for item in found.items] == [("a.png", "train"), ("b.png", "val")]
    assert all(item.draw and (item.draw(HEIGHT, WIDTH).mask > 0).any() for item in found.items)


def test_the_layout_of_roboflow(source: Path) -> None:
    for split in ("train", "valid"):
        photo(source / split / "images" / f"{split}.jpg.rf.0.png")
        (source / split / "labels").mkdir()
        (source / split / "labels" / f"{split}.jpg.rf.0.txt").write_text(line(1, 1, 1, 4))
    (source / "data.yaml").write_text(
        yaml.safe_dump({"names": ["a", "b"], "train": "../train/images", "val": "../valid/images"})
    )
    found = read_yolo_seg(source, ReadOptions())
    assert [item.split for item in found.items] == ["train", "val"]
    assert [(item.draw(HEIGHT, WIDTH).mask == 2).sum() for item in found.items if item.draw] == [16, 16]


FAULTS = {
    "a box": ("0 0.5 0.5 0.2 0.2", "is a box, not an outline"),
    "two points": ("0 0.1 0.1 0.2 0.2 ", "is a box"),
    "one point": ("0 0.1 0.1", "fewer than 3 points"),
    "odd count": ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "odd count"),
    "no class": ("9 0.1 0.1 0.2 0.2 0.3 0.1", "is of no class"),
    "half a class": ("0.5 0.1 0.1 0.2 0.2 0.3 0.1", "is of no class"),
    "words": ("cell 0.1 0.1 0.2 0.2 0.3 0.1", "no line of numbers|not a line of numbers"),
    "NaN": ("0 nan 0.1 0.2 0.2 0.3 0.1", "no numbers"),
    "pixels": ("0 10 10 20 20 30 10", "no shares of the image"),
    "outside": ("0 1.1 0.1 1.2 0.2 1.3 0.1", "outside its image"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_line_is_left_out(source: Path, fault: str) -> None:
    import re

    text, reason = FAULTS[fault]
    found = read_yolo_seg(lay_out(source, f"{line(0, 1, 2, 5)}\n{text}\n"), ReadOptions())
    ((name, told),) = found.skipped
    assert name == "labels/train/a.txt:2"
    assert re.search(reason, told)
    first = found.items[0]
    assert first.draw is not None
    assert (first.draw(HEIGHT, WIDTH).mask > 0).sum() == 25


def test_labels_that_are_boxes_all(source: Path) -> None:
    lay_out(source, "0 0.5 0.5 0.2 0.2")
    (source / "labels" / "val" / "b.txt").write_text("1 0.5 0.5 0.2 0.2")
    with pytest.raises(DataError, match=r"boxes, not outlines.*labels/train/a\.txt:1"):
        read_yolo_seg(source, ReadOptions())


def test_no_labels_is_no_object_and_told(source: Path) -> None:
    lay_out(source)
    (source / "labels" / "train" / "a.txt").unlink()
    (source / "labels" / "val" / "b.txt").write_text(line(0, -1, -1, 3))
    found = read_yolo_seg(source, ReadOptions())
    assert "images without a label file, taken to hold no object: 1" in found.notes
    assert f"{CLIPPED}: 1" in found.notes
    assert [(i.draw(HEIGHT, WIDTH).mask > 0).sum() for i in found.items if i.draw] == [0, 4]


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
    lay_out(source)
    (source / "data.yaml").write_text(content)
    with pytest.raises(DataError, match=reason) as told:
        read_yolo_seg(source, ReadOptions())
    assert "data.yaml" in str(told.value)


def test_paths_lead_nowhere_else(source: Path, tmp_path: Path) -> None:
    photo(tmp_path / "other" / "images" / "secret.png")
    lay_out(source, line(0, 1, 2, 5), val=str(tmp_path / "other" / "images"), test="../other")
    (source / "images" / "train" / "link.png").symlink_to(tmp_path / "other" / "images" / "secret.png")
    (source / "list.txt").write_text("/etc/passwd\n../other/images/secret.png\nmissing.png\n")
    settings = yaml.safe_load((source / "data.yaml").read_text())
    (source / "data.yaml").write_text(yaml.safe_dump({**settings, "val": ["list.txt", "images/val"]}))
    found = read_yolo_seg(source, ReadOptions())
    assert {item.image.name for item in found.items} == {"a.png", "b.png"}
    skipped = dict(found.skipped)
    assert "outside its folder" in skipped["list.txt:1"]
    assert "outside its folder" in skipped["list.txt:2"]
    assert "no such file" in skipped["list.txt:3"]
    assert "../other" in skipped


def test_nothing_of_this_kind(source: Path) -> None:
    assert recognise_yolo_seg(source) is None
    with pytest.raises(DataError, match=r"no data\.yaml.*--format"):
        read_yolo_seg(source, ReadOptions())

"""The layout of Pascal VOC and its descendants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segpipe.data.formats.masks.palette_files import VOC_NAMES, voc_color
from segpipe.errors import DataError
from tests.worlds.layouts import HEIGHT, WIDTH, import_source, instances_of, items, mask_of, photo, save, values

COLORMAP = [voc_color(index) for index in range(256)]


def write_voc(root: Path, name: str, seed: int = 0, with_instances: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Write an image with VOC's palette masks; return class values and instance ids (0 for none and for void)."""
    photo(root / "JPEGImages" / f"{name}.jpg")
    classes, ids = values(seed, [0, 1, 15, 20, 255]), values(seed + 1, [0, 1, 2, 3])
    ids[classes == 0] = 0
    ids[: HEIGHT // 2][classes[: HEIGHT // 2] == 255] = 255
    save(root / "SegmentationClass" / f"{name}.png", classes, COLORMAP)
    if with_instances:
        save(root / "SegmentationObject" / f"{name}.png", ids, COLORMAP)
    return classes, np.where(classes == 255, 0, ids)


def write_lists(root: Path, **names: str) -> None:
    folder = root / "ImageSets" / "Segmentation"
    folder.mkdir(parents=True, exist_ok=True)
    for split, text in names.items():
        (folder / f"{split}.txt").write_text(text)


@pytest.mark.parametrize("inner", ["", "VOC2012", "VOCdevkit/VOC2012"])
def test_palette_masks_instances_and_lists(source: Path, data: Path, inner: str) -> None:
    root = source / inner
    truth = {name: write_voc(root, name, seed) for seed, name in enumerate(["a", "b", "c"])}
    photo(root / "JPEGImages" / "unlabelled.jpg")
    write_lists(root, train="a\n\n", val="b 1\n", test="c\n", trainval="a\nb\n")
    report = import_source(source, data)
    assert (report.format, report.images, report.masks) == ("voc", 3, 3)
    assert report.recognised == "JPEGImages/ with SegmentationClass/"
    assert report.splits == {"train": 1, "val": 1, "test": 1}
    assert report.classes.names == list(VOC_NAMES)
    assert report.classes.ignore == (255,)
    assert "images without a mask, left out: 1" in report.notes
    for key, item in items(data).items():
        np.testing.assert_array_equal(mask_of(item), truth[key][0])
        np.testing.assert_array_equal(instances_of(item), truth[key][1])


def test_colour_masks_of_cvat(source: Path, data: Path) -> None:
    photo(source / "JPEGImages" / "a.png")
    photo(source / "JPEGImages" / "empty.png")
    table = [("background", (0, 0, 0)), ("cell", (250, 50, 83)), ("dirt", (50, 50, 50))]
    (source / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\n" + "".join(f"{n}:{r},{g},{b}::\n" for n, (r, g, b) in table)
    )
    truth, instances = values(4, [0, 1, 2]), values(5, [0, 1, 2])
    instances[truth == 0] = 0
    colours = np.array([colour for _, colour in table], np.uint8)
    save(source / "SegmentationClass" / "a.png", colours[truth])
    save(source / "SegmentationClass" / "empty.png", colours[truth // 2 * 2])
    save(source / "SegmentationObject" / "a.png", np.array(COLORMAP, np.uint8)[instances])
    report = import_source(source, data)
    assert report.classes.names == ["background", "cell", "dirt"]
    assert report.classes_from == "labelmap.txt"
    imported = items(data)
    np.testing.assert_array_equal(mask_of(imported["a"]), truth)
    np.testing.assert_array_equal(mask_of(imported["empty"]), truth // 2 * 2)
    imported_ids = instances_of(imported["a"])
    pairs = {(int(a), int(b)) for a, b in zip(imported_ids.flat, instances.flat, strict=True)}
    assert len(pairs) == 3
    assert (0, 0) in pairs


def test_class_names_of_labelme(source: Path, data: Path) -> None:
    write_voc(source, "a", with_instances=False)
    save(source / "SegmentationClass" / "a.png", values(0, [0, 1, 2, 255]), COLORMAP)
    (source / "class_names.txt").write_text("__ignore__\n_background_\ncat\ndog\n")
    report = import_source(source, data)
    assert [(spec.name, spec.value) for spec in report.classes.classes] == [("_background_", 0), ("cat", 1), ("dog", 2)]
    assert report.classes.ignore == (255,)
    np.testing.assert_array_equal(mask_of(items(data)["a"]), values(0, [0, 1, 2, 255]))


def test_names_in_lists_are_not_used_as_paths(source: Path, data: Path) -> None:
    write_voc(source, "a")
    photo(source / "secret.jpg")
    write_lists(source, train="a\n../secret\n/etc/passwd\nb\n")
    report = import_source(source, data)
    assert [*items(data)] == ["a"]
    assert [reason for _, reason in report.skipped] == [
        f"names a missing image: {name!r}" for name in ("../secret", "/etc/passwd", "b")
    ]


@pytest.mark.parametrize(
    ("train", "val", "message"), [("a\n", "a\n", "is in two lists.*train.txt"), ("\xff", "", "UTF-8")]
)
def test_invalid_lists(source: Path, data: Path, train: str, val: str, message: str) -> None:
    write_voc(source, "a")
    write_lists(source, val=val)
    (source / "ImageSets" / "Segmentation" / "train.txt").write_bytes(train.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        import_source(source, data)


def test_a_broken_mask_does_not_stop_the_others(source: Path, data: Path) -> None:
    for name in "abcd":
        write_voc(source, name)
    (source / "SegmentationClass" / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    save(source / "SegmentationObject" / "c.png", np.zeros((HEIGHT + 1, WIDTH), np.uint8), COLORMAP)
    save(source / "SegmentationClass" / "d.png", np.full((HEIGHT, WIDTH, 3), (1, 2, 3), np.uint8))
    report = import_source(source, data)
    assert [key for key, item in items(data).items() if item.mask] == ["a"]
    assert [Path(name).stem for name, _ in report.skipped] == ["b", "c", "d"]
    assert "(1, 2, 3) on 450 pixels" in report.skipped[2][1]


def test_several_years_and_tasks_are_merged(source: Path, data: Path) -> None:
    for seed, task in enumerate(("task_1", "task_2", "task_3")):
        write_voc(source / task, "a", seed)
        write_voc(source / task, "b", seed)
    report = import_source(source, data)
    assert (report.format, report.images, report.groups, report.splits) == ("voc", 6, 3, {})
    assert {item.group for item in items(data).values()} == {"task_1", "task_2", "task_3"}
    for task in ("task_1", "task_2", "task_3"):
        write_lists(source / task, train="a\n", val="b\n")
    report = import_source(source, data, replace=True)
    assert (report.images, report.groups) == (6, 0)  # their lists divide the tasks
    (source / "task_2" / "class_names.txt").write_text("background\ncell\n")
    with pytest.raises(
        DataError, match=r"classes of several folders of VOC differ.*task_1, task_2.*import one of them"
    ):
        import_source(source, data, replace=True)

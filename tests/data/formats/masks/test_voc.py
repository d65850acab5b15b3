"""The layout of Pascal VOC and its descendants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segpipe.data.formats.masks.palette_files import VOC_NAMES, voc_color
from segpipe.errors import DataError

from tests.worlds.layouts import HEIGHT, WIDTH, bring, instances_of, items, mask_of, photo, save, values

COLORMAP = [voc_color(index) for index in range(256)]


def voc(top: Path, name: str, seed: int = 0, objects: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """An image with palette masks as VOC has them; class values and object numbers (0 for none and for void)."""
    photo(top / "JPEGImages" / f"{name}.jpg")
    classes, numbers = values(seed, [0, 1, 15, 20, 255]), values(seed + 1, [0, 1, 2, 3])
    numbers[classes == 0] = 0
    numbers[: HEIGHT // 2][classes[: HEIGHT // 2] == 255] = 255
    save(top / "SegmentationClass" / f"{name}.png", classes, COLORMAP)
    if objects:
        save(top / "SegmentationObject" / f"{name}.png", numbers, COLORMAP)
    return classes, np.where(classes == 255, 0, numbers)


def lists(top: Path, **names: str) -> None:
    folder = top / "ImageSets" / "Segmentation"
    folder.mkdir(parents=True, exist_ok=True)
    for split, text in names.items():
        (folder / f"{split}.txt").write_text(text)


@pytest.mark.parametrize("inner", ["", "VOC2012", "VOCdevkit/VOC2012"])
def test_palette_masks_objects_and_lists(source: Path, data: Path, inner: str) -> None:
    top = source / inner
    truth = {name: voc(top, name, seed) for seed, name in enumerate(["a", "b", "c"])}
    photo(top / "JPEGImages" / "unlabelled.jpg")
    lists(top, train="a\n\n", val="b 1\n", test="c\n", trainval="a\nb\n")
    report = bring(source, data)
    assert (report.format, report.images, report.masks) == ("voc", 3, 3)
    assert report.recognised == "JPEGImages/ with SegmentationClass/"
    assert report.splits == {"train": 1, "val": 1, "test": 1}
    assert report.classes.names == list(VOC_NAMES)
    assert report.classes.ignore == (255,)
    assert "images without a mask, left aside: 1" in report.notes
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
    truth, objects = values(4, [0, 1, 2]), values(5, [0, 1, 2])
    objects[truth == 0] = 0
    colours = np.array([colour for _, colour in table], np.uint8)
    save(source / "SegmentationClass" / "a.png", colours[truth])
    save(source / "SegmentationClass" / "empty.png", colours[truth // 2 * 2])
    save(source / "SegmentationObject" / "a.png", np.array(COLORMAP, np.uint8)[objects])
    report = bring(source, data)
    assert report.classes.names == ["background", "cell", "dirt"]
    assert report.classes_from == "labelmap.txt"
    found = items(data)
    np.testing.assert_array_equal(mask_of(found["a"]), truth)
    np.testing.assert_array_equal(mask_of(found["empty"]), truth // 2 * 2)
    ours = instances_of(found["a"])
    pairs = {(int(a), int(b)) for a, b in zip(ours.flat, objects.flat, strict=True)}
    assert len(pairs) == 3
    assert (0, 0) in pairs


def test_class_names_of_labelme(source: Path, data: Path) -> None:
    voc(source, "a", objects=False)
    save(source / "SegmentationClass" / "a.png", values(0, [0, 1, 2, 255]), COLORMAP)
    (source / "class_names.txt").write_text("__ignore__\n_background_\ncat\ndog\n")
    report = bring(source, data)
    assert [(spec.name, spec.value) for spec in report.classes.classes] == [("_background_", 0), ("cat", 1), ("dog", 2)]
    assert report.classes.ignore == (255,)
    np.testing.assert_array_equal(mask_of(items(data)["a"]), values(0, [0, 1, 2, 255]))


def test_names_in_lists_are_no_paths(source: Path, data: Path) -> None:
    voc(source, "a")
    photo(source / "secret.jpg")
    lists(source, train="a\n../secret\n/etc/passwd\nb\n")
    report = bring(source, data)
    assert [*items(data)] == ["a"]
    assert [reason for _, reason in report.skipped] == [
        f"names an image that is not there: {name!r}" for name in ("../secret", "/etc/passwd", "b")
    ]


@pytest.mark.parametrize(
    ("train", "val", "message"), [("a\n", "a\n", "stands in two lists.*train.txt"), ("\xff", "", "UTF-8")]
)
def test_lists_that_are_wrong(source: Path, data: Path, train: str, val: str, message: str) -> None:
    voc(source, "a")
    lists(source, val=val)
    (source / "ImageSets" / "Segmentation" / "train.txt").write_bytes(train.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        bring(source, data)


def test_a_bad_mask_stops_no_other(source: Path, data: Path) -> None:
    for name in "abcd":
        voc(source, name)
    (source / "SegmentationClass" / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    save(source / "SegmentationObject" / "c.png", np.zeros((HEIGHT + 1, WIDTH), np.uint8), COLORMAP)
    save(source / "SegmentationClass" / "d.png", np.full((HEIGHT, WIDTH, 3), (1, 2, 3), np.uint8))
    report = bring(source, data)
    assert [key for key, item in items(data).items() if item.mask] == ["a"]
    assert [Path(name).stem for name, _ in report.skipped] == ["b", "c", "d"]
    assert "(1, 2, 3) on 450 pixels" in report.skipped[2][1]


def test_several_years_are_for_the_user_to_choose(source: Path, data: Path) -> None:
    for year in ("VOC2007", "VOC2012"):
        voc(source / year, "a")
    with pytest.raises(DataError, match=r"several datasets.*VOC2007, VOC2012.*import one"):
        bring(source, data)
    with pytest.raises(DataError, match=r"several folders.*VOC2007, VOC2012.*give one"):
        bring(source, data, "voc")

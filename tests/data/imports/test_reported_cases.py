"""Small inputs after public reports of misread datasets: each gives its right answer, or an error that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segpipe.data.formats.readings.choose import UnclearSource
from segpipe.data.importer import ImportReport
from segpipe.errors import DataError
from tests.worlds.layouts import import_source, items, mask_of

Read = Callable[..., ImportReport]


@pytest.fixture
def read(data: Path) -> Read:
    """A function that imports a case. The test is skipped where the cases are absent."""
    folder = Path(__file__).resolve().parents[4] / "shared" / "cases"
    if not folder.is_dir():
        pytest.skip("the reported cases (../shared/cases) are not on this machine")
    return lambda case, **options: import_source(folder / case, data, **options)


def pixels(data: Path) -> list[int]:
    """Return the pixels of each value in all masks together."""
    return sum(np.bincount(mask_of(item).ravel(), minlength=256) for item in items(data).values()).tolist()


@pytest.mark.parametrize(
    ("case", "layout", "kind", "names"),
    [
        ("W02_palette_order_per_file", "colour-masks", "colours", ["background", "foreground"]),
        ("W04_voc_background_not_first", "voc", None, ["background", "cat", "dog"]),
        ("W05_jpeg_masks", "folder", "binary", ["background", "foreground"]),
        ("W10_ultralytics_yaml_beside_masks", "folder", "classes", ["background", "class 1"]),
        ("W14_label_maps_of_few_objects", "label-maps", "instances", ["background", "object"]),
        ("W18_labels_in_alpha", "folder", "alpha", ["background", "foreground"]),
        ("W21_void_255", "folder", "classes", ["background", "class 1", "class 2"]),
        ("M01b_string_category_ids", "coco", None, ["background", "part"]),
        ("M03_suffix_advice", "folder", "classes", ["background", "foreground"]),
        ("M05_flat_masks_nested_images", "folder", "classes", ["background", "foreground"]),
        ("W07_yolo_labels_beside_images", "yolo-seg", None, ["background", "cell"]),
        ("W11_coco_normalised_polygons", "coco", None, ["background", "part"]),
        ("X01_labelstudio_windows_paths", "coco", None, ["background", "part"]),
        ("M08_oxford_trimaps", "folder", "classes", ["background", "foreground"]),
        ("X11_carvana_gif", "paired-names", "classes", ["background", "class 1"]),
        ("X12_cvat_camvid", "paired-names", "colours", ["background", "road"]),
        ("X03_labelstudio_yolo", "yolo-seg", None, ["background", "cell", "nucleus"]),
        ("X07_prefix_names", "folder", "classes", ["background", "foreground"]),
        ("X13_coco_no_size", "coco", None, ["background", "part"]),
    ],
)
def test_the_right_answer(read: Read, data: Path, case: str, layout: str, kind: str | None, names: list[str]) -> None:
    report = read(case)
    assert (report.format, report.reading.kind, report.classes.names) == (layout, kind, names)
    assert report.masks == report.images > 0
    counts = pixels(data)
    assert all(counts[spec.value] > 0 for spec in report.classes.classes)
    assert counts[report.classes.classes[0].value] == max(counts)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("W01_all_iscrowd", "all annotations are crowds.*12 annotations"),
        ("W09_yolo_no_labels", "none of them has a label file"),
        ("T07_faulty_dataset_yaml", r"dataset\.yaml.*expected at least 2"),
    ],
)
def test_the_error_says_what_is_wrong(read: Read, data: Path, case: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(case)
    assert not data.exists()


def test_masks_beside_turned_images_are_asked_about(read: Read, data: Path) -> None:
    with pytest.raises(UnclearSource, match=r"EXIF orientation.*--exif apply.*--exif ignore"):
        read("W17_exif_upside_down")
    read("W17_exif_upside_down", read={"exif": "ignore"})
    turned = {key: mask_of(item) for key, item in items(data).items()}
    read("W17_exif_upside_down", read={"exif": "apply"}, replace=True)
    for key, item in items(data).items():
        np.testing.assert_array_equal(turned[key], mask_of(item)[::-1, ::-1])


def test_files_that_are_not_read_are_counted(read: Read) -> None:
    report = read("W13_unread_kinds_lost_npy")
    unused = sum(group.files for group in report.unused)
    assert unused + 2 * report.images == 24


@pytest.mark.parametrize("case", ["X15_cityscapes_two_archives", "M10_cityscapes_polygons_alone"])
def test_cityscapes(read: Read, data: Path, case: str) -> None:
    report = read(case)
    assert (report.format, report.images, report.masks, report.groups) == ("cityscapes", 12, 12, 2)
    assert pixels(data)[0] == 12 * 28 * 20  # the road, as in the maps of label ids

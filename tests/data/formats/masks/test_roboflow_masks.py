"""Semantic masks from Roboflow: splits, tables of classes, augmented copies, and broken tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segpipe.errors import DataError
from tests.worlds.layouts import import_source, items, mask_of, photo, save, values

TABLE = "Pixel Value, Class\n0, background\n1, leaf\n2, stem\n"


def write(folder: Path, *names: str, table: str | None = TABLE) -> dict[str, np.ndarray]:
    """Write images with masks, and a table of classes; return the masks."""
    truth = {}
    for number, name in enumerate(names):
        photo(folder / f"{name}.jpg", seed=number)
        truth[name] = values(number, [0, 1, 2])
        save(folder / f"{name}_mask.png", truth[name])
    if table is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "_classes.csv").write_text(table)
    return truth


def test_splits_and_classes(source: Path, data: Path) -> None:
    truth = write(source / "train", "p0_jpg.rf.0a0", "p1_jpg.rf.0a1")
    truth |= write(source / "valid", "p2_jpg.rf.0a2") | write(source / "test", "p3_jpg.rf.0a3")
    (source / "README.roboflow.txt").write_text("x")
    report = import_source(source, data)
    assert (report.format, report.masks, report.skipped) == ("roboflow-masks", 4, [])
    assert [(spec.name, spec.value) for spec in report.classes.classes] == [("background", 0), ("leaf", 1), ("stem", 2)]
    assert report.splits == {"train": 2, "val": 1, "test": 1}
    assert [group.example for group in report.unused] == ["README.roboflow.txt"]
    for key, item in items(data).items():
        np.testing.assert_array_equal(mask_of(item), truth[key])


def test_without_folders_of_splits(source: Path, data: Path) -> None:
    write(source, "a", "b")
    report = import_source(source, data)
    assert (report.format, report.masks, report.splits) == ("roboflow-masks", 2, {})


def test_augmented_copies_are_a_group(source: Path, data: Path) -> None:
    write(source / "train", "p0_jpg.rf.0a0", "p0_jpg.rf.0a1", "p1_jpg.rf.0a1")
    report = import_source(source, data)
    assert {key: item.group for key, item in items(data).items()} == {
        "p0_jpg.rf.0a0": "p0_jpg",
        "p0_jpg.rf.0a1": "p0_jpg",
        "p1_jpg.rf.0a1": None,
    }
    assert any("augmented copies of the same image" in note for note in report.notes)


TABLES = {
    "no header": ("0,background\n1,leaf\n2,stem\n", ["background", "leaf", "stem"]),
    "no background": ("Pixel Value,Class\n1,leaf\n2,stem\n", ["background", "leaf", "stem"]),
    "another background": ("Pixel Value,Class\n0,unlabelled\n1,leaf\n2,stem\n", ["unlabelled", "leaf", "stem"]),
    "blanks, quotes and a byte order mark": (
        '\ufeffPixel Value, Class\n0, background\n1, "leaf, old"\n\n2, stem\n',
        ["background", "leaf, old", "stem"],
    ),
    "classes that no mask has": (TABLE + "7, root\n", ["background", "leaf", "stem", "root"]),
    "lines of Windows": (TABLE.replace("\n", "\r\n"), ["background", "leaf", "stem"]),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables_of_classes(source: Path, data: Path, case: str) -> None:
    table, names = TABLES[case]
    write(source / "train", "a", table=table)
    assert import_source(source, data).classes.names == names


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("", "the classes cannot be read"),
        ("Pixel Value, Class\n0, background\n", "the classes cannot be read"),
        ("Pixel Value, Class\n0, background\n1, leaf\n2, leaf\n", "each class once"),
        ("Pixel Value, Class\n0, stem\n1, background\n", "the background with value 0"),
        ("Pixel Value, Class\n0, background\n1, leaf\n1, stem\n", "a pixel value has two classes"),
        ("Pixel Value, Class\n0, background\nx, leaf\n", "not a pixel value and a class"),
        ("Pixel Value, Class\n0, background\n1\n", "not a pixel value and a class"),
        ("Pixel Value, Class\n0, background\n9999999999999, x\n", "not a pixel value and a class"),
    ],
)
def test_broken_tables(source: Path, data: Path, table: str, words: str) -> None:
    write(source / "train", "a", table=table)
    with pytest.raises(DataError, match=words):
        import_source(source, data)


def test_tables_that_contradict_each_other(source: Path, data: Path) -> None:
    write(source / "train", "a")
    write(source / "valid", "b", table="Pixel Value, Class\n0, background\n1, stem\n2, leaf\n")
    with pytest.raises(DataError, match=r"valid/_classes\.csv: a pixel value has two meanings.*1: stem, expected leaf"):
        import_source(source, data)


def test_images_without_a_mask_and_masks_without_an_image(source: Path, data: Path) -> None:
    write(source / "train", "a")
    photo(source / "train" / "alone.jpg")
    save(source / "train" / "lost_mask.png", values(0, [0, 1]))
    photo(source / "train" / "twice.jpg")
    photo(source / "train" / "twice.png")
    report = import_source(source, data)
    assert list(items(data)) == ["a"]
    assert [name for name, _ in report.skipped] == ["train/lost_mask", "train/twice"]
    assert any("without a mask: 1, for example train/alone" in note for note in report.notes)
    assert sum(group.files for group in report.unused) == 4


def test_a_table_of_another_tool_is_not_taken_for_one(source: Path, data: Path) -> None:
    """Roboflow's exports for classification have a table with the same name, and no masks."""
    photo(source / "train" / "a.jpg")
    (source / "train" / "_classes.csv").write_text("filename, leaf\na.jpg, 1\n")
    with pytest.raises(DataError, match="no layout fits"):
        import_source(source, data)

"""Masks of brushes from Label Studio: their names, their images, and the pairing that only the user can confirm."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from segpipe.data.formats.readings.choose import UnclearSource
from segpipe.errors import DataError
from tests.worlds.layouts import HEIGHT, WIDTH, import_source, instances_of, items, mask_of, photo, save


def brush(source: Path, name: str, row: int = 1, folder: str = "brush", value: int = 255) -> np.ndarray:
    """Write a mask with 2 x 3 set pixels from (row, 4)."""
    plane = np.zeros((HEIGHT, WIDTH), np.uint8)
    plane[row : row + 2, 4:7] = value
    save(source / folder / f"{name}.png", plane)
    return plane > 0


def photos(source: Path, *names: str) -> None:
    for number, name in enumerate(names):
        photo(source / "images" / name, seed=number)


def table(source: Path, *rows: tuple[int, str], name: str = "project.csv") -> None:
    lines = [
        "image,id,label,annotator,annotation_id,created_at",
        *(f'{image},{k},"[{{}}]",1,{k},2024' for k, image in rows),
    ]
    (source / name).write_text("\n".join(line.replace(",", "\t") if name.endswith(".tsv") else line for line in lines))


def test_a_table_says_which_task_shows_which_image(source: Path, data: Path) -> None:
    photos(source, "a1b2c3d4-x.png", "y 1.png", "unlabelled.png")
    truth = brush(source, "task-21-annotation-31-by-1-tag-tree-0", 1)
    other = brush(source, "task-7-annotation-9-by-me@x.org-tag-tree-0", 5)
    table(source, (21, "/data/local-files/?d=images/y%201.png"), (7, "/data/upload/3/a1b2c3d4-x.png"))
    report = import_source(source, data)
    assert (report.format, report.masks, report.classes.names) == ("label-studio-masks", 2, ["background", "tree"])
    np.testing.assert_array_equal(mask_of(items(data)["y_1"]) > 0, truth)
    np.testing.assert_array_equal(mask_of(items(data)["a1b2c3d4-x"]) > 0, other)
    assert any("without a mask: 1, for example images/unlabelled" in note for note in report.notes)
    assert [group.example for group in report.unused] == ["images/unlabelled.png"]


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "json-min"])
def test_each_export_of_the_project_pairs_them(source: Path, data: Path, kind: str) -> None:
    photos(source, "b.png", "a.png")
    first, second = (
        brush(source, "task-1-annotation-1-by-1-tag-tree-0", 1),
        brush(source, "task-2-annotation-2-by-1-tag-tree-0", 5),
    )
    if kind in ("csv", "tsv"):
        table(source, (1, "b.png"), (2, "a.png"), name=f"project.{kind}")
    else:
        tasks = [
            {"id": k, "data": {"image": f"{name}.png"}, "annotations": [{"id": k, "result": []}]}
            for k, name in ((1, "b"), (2, "a"))
        ]
        short = [
            {"id": k, "image": f"{name}.png", "annotator": 1, "annotation_id": k} for k, name in ((1, "b"), (2, "a"))
        ]
        (source / "project.json").write_text(json.dumps(tasks if kind == "json" else short))
    import_source(source, data, "label-studio-masks")
    np.testing.assert_array_equal(mask_of(items(data)["b"]) > 0, first)
    np.testing.assert_array_equal(mask_of(items(data)["a"]) > 0, second)


def test_without_a_table_the_user_must_confirm_the_order(source: Path, data: Path) -> None:
    photos(source, "ffffffff-img2.png", "0a0a0a0a-img10.png", "11111111-img1.png")
    planes = {k: brush(source, f"task-{k}-annotation-{k}-by-1-tag-tree-0", row) for k, row in ((2, 1), (10, 4), (9, 7))}
    words = r"no file says.*task 2 with 11111111-img1\.png \.\.\. task 10 with 0a0a0a0a-img10\.png.*--format label-studio-masks"
    with pytest.raises(UnclearSource, match=words):
        import_source(source, data)
    assert not data.exists()
    report = import_source(source, data, "label-studio-masks")
    assert any("in their order" in note for note in report.notes)
    for key, number in (("11111111-img1", 2), ("ffffffff-img2", 9), ("0a0a0a0a-img10", 10)):
        np.testing.assert_array_equal(mask_of(items(data)[key]) > 0, planes[number])


def test_masks_that_cannot_be_paired_and_the_advice(source: Path, data: Path) -> None:
    photos(source, "a.png", "b.png", "c.png")
    brush(source, "task-1-annotation-1-by-1-tag-tree-0")
    brush(source, "task-3-annotation-3-by-1-tag-tree-0")
    for format in ("auto", "label-studio-masks"):
        with pytest.raises(
            DataError, match=r"masks of 2 tasks, and 3 images.*add the export of the same project as CSV"
        ):
            import_source(source, data, format)
    table(source, (1, "a.png"), (2, "b.png"), (3, "c.png"))
    assert import_source(source, data).masks == 2


def test_sizes_refute_the_order(source: Path, data: Path) -> None:
    photos(source, "a.png", "b.png")
    save(source / "images" / "b.png", np.zeros((HEIGHT, WIDTH + 1, 3), np.uint8))
    for number in (1, 2):
        brush(source, f"task-{number}-annotation-1-by-1-tag-tree-0")
    with pytest.raises(DataError, match=r"differ in size \(task-2.*and b\.png\)"):
        import_source(source, data)


def test_regions_are_instances_and_the_latest_annotation_counts(source: Path, data: Path) -> None:
    photos(source, "a.png")
    brush(source, "task-1-annotation-5-by-2-tag-tree-0", 1)
    brush(source, "task-1-annotation-11-by-1-tag-tree-0", 5, value=3)
    brush(source, "task-1-annotation-11-by-1-tag-tree-1", 9)
    brush(source, "task-1-annotation-11-by-1-tag-north-side-2-0", 13)
    table(source, (1, "a.png"))
    report = import_source(source, data)
    assert report.classes.names == ["background", "north-side-2", "tree"]
    mask, instances = mask_of(items(data)["a"]), instances_of(items(data)["a"])
    assert [mask[row, 4] for row in (1, 5, 9, 13)] == [0, 2, 2, 1]
    assert len(np.unique(instances)) == 4
    assert "masks of earlier annotations of a task, not used: 1" in report.notes


CLASSES = {
    "one tag": (["tag-tree", "tag-house"], ["house", "tree"]),
    "a single label": (["tag-tree"], ["tree"]),
    "a tag with dashes": (["my-tag-1-tree", "my-tag-1-house"], ["house", "tree"]),
    "labels with dashes and digits": (["tag-type-2", "tag-cell"], ["cell", "type-2"]),
    "labels that begin alike": (["tag-cell", "tag-cell-nucleus"], ["cell", "cell-nucleus"]),
    "two tags": (["tag-tree", "brush2-tree", "brush2-house"], ["house", "tree"]),
    "blanks": (["tag-tall tree", "tag-café"], ["café", "tall tree"]),
}


@pytest.mark.parametrize("case", CLASSES)
def test_classes_from_names(source: Path, data: Path, case: str) -> None:
    words, names = CLASSES[case]
    photos(source, "a.png")
    for number, word in enumerate(words):
        brush(source, f"task-1-annotation-1-by-1-{word}-0", 1 + 3 * number)
    table(source, (1, "a.png"))
    assert import_source(source, data).classes.names == ["background", *names]


def test_masks_of_missing_images_are_counted(source: Path, data: Path) -> None:
    photos(source, "a.png")
    for number in (1, 2, 3):
        brush(source, f"task-{number}-annotation-{number}-by-1-tag-tree-0")
    table(source, (1, "a.png"), (2, "gone.png"), (3, "x/a.png"))
    report = import_source(source, data)
    assert (report.masks, [reason for _, reason in report.skipped]) == (
        1,
        ["the image of its task is missing", "another task shows the same image"],
    )
    assert sum(group.files for group in report.unused if group.kind == ".png") == 2
    (source / "images" / "a.png").unlink()
    with pytest.raises(DataError, match="has masks of Label Studio, but no images"):
        import_source(source, data, replace=True)


def test_masks_as_numpy_files(source: Path, data: Path) -> None:
    photos(source, "a.png")
    plane = np.zeros((HEIGHT, WIDTH), np.uint8)
    plane[2:4] = 255
    np.save(source / "task-1-annotation-1-by-1-tag-tree-0.npy", plane)
    table(source, (1, "a.png"))
    import_source(source, data)
    np.testing.assert_array_equal(mask_of(items(data)["a"]) > 0, plane > 0)


def test_a_mask_of_another_size_is_left_out_with_its_image(source: Path, data: Path) -> None:
    photos(source, "a.png", "b.png")
    brush(source, "task-1-annotation-1-by-1-tag-tree-0")
    save(source / "brush" / "task-2-annotation-1-by-1-tag-tree-0.png", np.full((4, 4), 255, np.uint8))
    table(source, (1, "a.png"), (2, "b.png"))
    report = import_source(source, data)
    assert list(items(data)) == ["a"]
    assert "not the size of its image" in report.skipped[0][1]

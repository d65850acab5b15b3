"""COCO as labelling tools write it: paths of other machines, parents of categories, units of coordinates, links."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segpipe.errors import DataError
from tests.data.formats.annotations.test_coco import BOX, document, write_json
from tests.worlds.layouts import HEIGHT, WIDTH, import_source, items, mask_of, photo

PATHS = {
    "Label Studio on Windows": ("images\\a1b2c3d4-a.png", "images/a1b2c3d4-a.png"),
    "media on Windows": ("..\\..\\media\\upload\\1\\a1b2c3d4-a.png", "images/a1b2c3d4-a.png"),
    "media on Linux": (
        "../../../root/.local/share/label-studio/media/upload/1/a1b2c3d4-a.png",
        "images/a1b2c3d4-a.png",
    ),
    "the user's own images": ("images/a1b2c3d4-a.png", "images/a.png"),
    "the user's own images in the source": ("a1b2c3d4-a.png", "a.png"),
    "local files": ("/data/local-files/?d=site/images/a.png", "images/a.png"),
    "local files, encoded": ("/data/local-files/?d=site%2Fimages%2Fa%20b.png", "images/a b.png"),
    "a URL": ("https://host/x/images/a.png?token=1", "images/a.png"),
    "a name with a percent sign": ("caf%C3%A9.png", "images/café.png"),
    "an absolute path": ("/home/me/project/images/a.png", "images/a.png"),
}


@pytest.mark.parametrize("case", PATHS)
def test_images_by_paths_of_other_machines(source: Path, data: Path, case: str) -> None:
    name, image = PATHS[case]
    photo(source / image)
    write_json(source / "result.json", document(name))
    report = import_source(source, data)
    assert (report.format, report.masks, report.skipped, report.unused) == ("coco", 1, [], [])


def test_a_file_with_the_very_name_counts_most(source: Path, data: Path) -> None:
    for name in ("a1b2c3d4-a.png", "a.png", "50%.png"):
        photo(source / "images" / name)
    write_json(source / "result.json", document("a1b2c3d4-a.png", "50%.png"))
    import_source(source, data)
    assert sorted(items(data)) == ["50_", "a1b2c3d4-a"]


def test_names_never_lead_out_of_the_source(source: Path, data: Path, tmp_path: Path) -> None:
    photo(tmp_path / "secret.png")
    photo(source / "images" / "a.png")
    write_json(source / "x.json", document("a.png", "../../secret.png", str(tmp_path / "secret.png")))
    report = import_source(source, data)
    assert list(items(data)) == ["a"]
    assert ["outside its folder" in reason for _, reason in report.skipped] == [True, True]


def roboflow(*categories: tuple[int, str, str], used: int = 1) -> dict[str, Any]:
    entries = [{"id": number, "name": name, "supercategory": parent} for number, name, parent in categories]
    content = document("a.jpg", categories=entries)
    content["annotations"][0]["category_id"] = used
    return content


@pytest.mark.parametrize(
    ("categories", "used", "classes"),
    [
        ([(0, "cells", "none"), (1, "cell", "cells"), (2, "gap", "cells")], 1, {"background": 0, "cell": 1, "gap": 2}),
        ([(0, "cells", "none"), (1, "cell", "cells")], 0, {"background": 0, "cells": 1, "cell": 2}),
        ([(0, "cat", "animal"), (1, "dog", "animal")], 1, {"background": 0, "cat": 1, "dog": 2}),
        ([(0, "cells", "none"), (1, "cell", "none")], 1, {"background": 0, "cells": 1, "cell": 2}),
        ([(0, "cell", "none"), (1, "cell", "cell")], 1, {"background": 0, "cell": 1}),
    ],
)
def test_the_parent_of_all_categories_is_no_class(
    source: Path, data: Path, categories: list[tuple[int, str, str]], used: int, classes: dict[str, int]
) -> None:
    for split in ("train", "valid"):
        photo(source / split / "a.jpg", seed=len(split))
        write_json(source / split / "_annotations.coco.json", roboflow(*categories, used=used))
    report = import_source(source, data)
    assert {spec.name: spec.value for spec in report.classes.classes} == classes
    assert report.masks == 2
    assert any("is no class" in note for note in report.notes) == (len(classes) < len(categories) + 1)


def scaled(width: float, height: float) -> list[float]:
    return (np.array(BOX).reshape(-1, 2) * (width / WIDTH, height / HEIGHT)).ravel().tolist()


@pytest.mark.parametrize(("unit", "edge"), [("fractions", 1), ("percent", 100)])
@pytest.mark.parametrize("box", [[2, 1, 6, 5], [2.4, 0.6, 5.5, 5.5]])
def test_polygons_in_other_units(source: Path, data: Path, unit: str, edge: float, box: list[float]) -> None:
    for name in ("a.png", "b.png"):
        photo(source / "images" / name)
    content = document("a.png", "b.png")
    for entry in content["annotations"]:
        entry |= {"segmentation": [scaled(edge, edge)], "bbox": box}
    write_json(source / "x.json", content)
    report = import_source(source, data)
    assert any(unit in note and "scaled to pixels" in note for note in report.notes)
    assert all((mask_of(item) > 0).sum() == 30 for item in items(data).values())


def test_pixels_are_not_taken_for_percent(source: Path, data: Path) -> None:
    photo(source / "images" / "a.png")
    for box in ([2, 1, 6, 5], None):
        content = document("a.png")
        content["annotations"][0]["bbox"] = box
        write_json(source / "x.json", content)
        report = import_source(source, data, replace=True)
        assert not any("scaled to pixels" in note for note in report.notes)
        assert (mask_of(items(data)["a"]) > 0).sum() == 30


@pytest.mark.parametrize("box", [[2, 1, 6, 5], None])
def test_mixed_units_are_an_error(source: Path, data: Path, box: list[float] | None) -> None:
    names = [f"{number}.png" for number in range(6)]
    for name in names:
        photo(source / "images" / name)
    content = document(*names)
    for entry in content["annotations"][: 1 if box else 2]:
        entry |= {"segmentation": [scaled(1, 1)], "bbox": box}
    write_json(source / "x.json", content)
    with pytest.raises(DataError, match=r"some polygons are in fractions.*such as annotation 10.*multiply the x"):
        import_source(source, data)
    for entry in content["annotations"]:
        entry["segmentation"] = [BOX]
    write_json(source / "x.json", content)
    assert import_source(source, data).masks == 6


def test_an_object_in_the_very_corner_is_no_fraction(source: Path, data: Path) -> None:
    for name in ("a.png", "b.png"):
        photo(source / "images" / name)
    content = document("a.png", "b.png")
    content["annotations"][0] |= {"segmentation": [[0, 0, 1, 0, 1, 1, 0, 1]], "bbox": [0, 0, 1, 1]}
    write_json(source / "x.json", content)
    import_source(source, data)
    assert (mask_of(items(data)["a"]) > 0).sum() == 1


def test_images_behind_a_link_and_the_advice(source: Path, data: Path, tmp_path: Path) -> None:
    photo(tmp_path / "disk" / "a.png")
    (source / "images").symlink_to(tmp_path / "disk")
    write_json(source / "x.json", document("a.png"))
    folder = tmp_path / "disk"
    with pytest.raises(DataError, match=f"a link that leads out of the source.*images/ leads to.*--images {folder}"):
        import_source(source, data)
    assert import_source(source, data, read={"images": str(folder)}).masks == 1


def test_images_behind_a_link_inside_the_source(source: Path, data: Path) -> None:
    photo(source / "all" / "a.png")
    (source / "images").symlink_to("all")
    write_json(source / "x.json", document("a.png"))
    assert import_source(source, data).masks == 1


@pytest.mark.parametrize("content", ["../disk", "../disk\n", "./disk"])
def test_links_that_were_saved_as_text(source: Path, data: Path, content: str) -> None:
    (source / "images").write_text(content)
    write_json(source / "x.json", document("a.png"))
    with pytest.raises(DataError, match=r"images: is a link that was saved as a text file.*git config core\.symlinks"):
        import_source(source, data)
    (source / "images").unlink()
    (source / "images").mkdir()
    (source / "images" / "a.png").write_text("../../disk/a.png")
    with pytest.raises(DataError, match=r"a\.png: is a link that was saved as a text file.*core\.symlinks"):
        import_source(source, data)


def test_images_with_boxes_among_outlines_are_counted(source: Path, data: Path) -> None:
    """Roboflow writes a box without an outline as an empty `segmentation`."""
    for name in ("a.png", "b.png"):
        photo(source / "images" / name)
    content = document("a.png", "b.png")
    content["annotations"] += [{"id": 99, "image_id": 10, "category_id": 7, "segmentation": [], "bbox": [9, 9, 5, 5]}]
    content["annotations"] += [content["annotations"][1]]  # which changes nothing
    write_json(source / "x.json", content)
    report = import_source(source, data)
    assert sum(note.startswith("images of which annotations are left out") for note in report.notes) == 1
    assert any(note.endswith("are background: 1") for note in report.notes)
    assert [name for name, _ in report.skipped] == ["x.json: annotation 99 of a.png", "x.json: annotation 11 of b.png"]

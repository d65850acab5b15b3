"""Class names beside masks of values, and errors about labels in files that are not read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from segpipe.errors import DataError
from tests.worlds.layouts import import_source
from tests.worlds.public_layouts import class_dict, colours, photo, save, text, values


def write(source: Path, images: str, masks: str, among: tuple[int, ...]) -> None:
    for n in range(4):
        photo(source / images / f"{n}.png", n)
        save(source / masks / f"{n}.png", values(n, among))


@pytest.mark.parametrize(
    ("folder", "among", "names", "ignore"),
    [
        ("annotations/trimaps", (1, 2, 3), ["background", "foreground"], (3,)),
        ("Trimap", (1, 2), ["background", "foreground"], (3,)),
        ("trimaps", (0, 128, 255), ["background", "class 128", "class 255"], ()),
        ("annotations/breeds", (1, 2, 3), ["class 1", "class 2", "class 3"], ()),
    ],
)
def test_trimaps(
    source: Path, data: Path, folder: str, among: tuple[int, ...], names: list[str], ignore: tuple[int, ...]
) -> None:
    write(source, "images", folder, among)
    report = import_source(source, data, **({} if "breeds" not in folder else {"read": {"masks": folder}}))
    assert (report.classes.names, report.classes.ignore) == (names, ignore)


def test_lists_of_names(source: Path, data: Path) -> None:
    write(source, "images", "labels", (0, 1, 2))
    text(
        source / "config.json",
        json.dumps({"labels": [{"name": "a--sky"}, {"name": "b", "readable": "Road"}, {"name": "void"}]}),
    )
    report = import_source(source, data)
    assert (report.classes.names, report.classes.ignore, report.classes_from) == (
        ["a--sky", "Road"],
        (2,),
        "config.json",
    )


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"labels": 3}', '{"labels": [1]}', '{"labels": [{"name": "a"}, {"name": "a"}]}', "\x00"]
)
def test_other_files_of_this_name_are_not_lists(source: Path, data: Path, content: str) -> None:
    write(source, "images", "labels", (0, 1, 2))
    text(source / "config.json", content)
    assert import_source(source, data).classes.names == ["background", "class 1", "class 2"]


def test_lists_without_all_values_and_lists_beside_colours_are_not_used(source: Path, data: Path) -> None:
    text(source / "config.json", json.dumps({"labels": [{"name": "a"}, {"name": "b"}]}))
    write(source, "images", "labels", (0, 1, 2))
    assert import_source(source, data).classes.names == ["background", "class 1", "class 2"]
    for n in range(4):
        save(source / "labels" / f"{n}.png", colours(n, [(9, 0, 0), (0, 9, 0)]))
    with pytest.raises(Exception, match="which colour is which class"):
        import_source(source, data, replace=True)


def test_a_palette_of_greys_names_values(source: Path, data: Path) -> None:
    write(source, "photo", "labels", (0, 255))
    class_dict(source / "inner" / "label_class_dict.csv", {"ground": (0, 0, 0), "road": (255, 255, 255)})
    report = import_source(source, data)
    assert report.classes.names == ["ground", "road"]
    assert report.classes_from == "label_class_dict.csv"


def test_known_palettes_are_advised_by_their_colours(source: Path, data: Path) -> None:
    for n in range(4):
        photo(source / "ortho" / f"{n}.png", n)
        save(source / "label" / f"{n}.png", colours(n, [(255, 255, 255), (255, 0, 255), (0, 0, 0)]))
    with pytest.raises(Exception, match=r"add --palette deepglobe or --palette suim, if these are its classes"):
        import_source(source, data)
    report = import_source(source, data, read={"palette": "deepglobe"})
    assert report.classes.names[:3] == ["urban", "agriculture", "rangeland"]
    assert report.classes.ignore == (255,)


def test_several_palettes_are_an_error(source: Path, data: Path) -> None:
    for n in range(3):
        photo(source / "x" / "img" / f"{n}.png", n)
        save(source / "x" / "label" / f"{n}.png", colours(n, [(9, 0, 0), (0, 9, 0)]))
    for name in ("class_dict.csv", "palette.csv"):
        class_dict(source / "x" / name, {"a": (9, 0, 0), "b": (0, 9, 0)})
    with pytest.raises(Exception, match=r"several palettes.*x/class_dict\.csv, x/palette\.csv.*--palette") as caught:
        import_source(source, data, "paired-names")
    advised = str(caught.value).rpartition("--palette ")[2]
    assert import_source(source, data, "paired-names", read={"palette": advised}).images == 3


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"images/a.png.gz": b"x"}, r"1 images are packed.*gunzip -r"),
        ({"images.zip": b"PK"}, r"holds archives.*images\.zip first"),
        (
            {"images/a.png": None, "Annotations/a.xml": b"<Annotations MicronsPerPixel='0.25'>"},
            r"Aperio ImageScope.*masks/",
        ),
        ({"image/a.jpg": None, "groundTruth/a.mat": b"MATLAB 5.0"}, r"MATLAB.*scipy\.io\.loadmat"),
        ({"rgb/a.png": None, "geojson/a.geojson": b"{}"}, r"geographic coordinates.*gdal_rasterize"),
    ],
)
def test_labels_that_are_not_read_are_named(
    source: Path, data: Path, files: dict[str, bytes | None], message: str
) -> None:
    for name, content in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        photo(source / name, 1) if content is None else (source / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        import_source(source, data)


def test_stacks_of_images_are_named(source: Path, data: Path) -> None:
    (source / "fold1").mkdir(parents=True)
    np.save(source / "fold1" / "images.npy", np.zeros((3, 8, 9, 3)))
    np.save(source / "fold1" / "masks.npy", np.zeros((3, 8, 9, 6)))
    with pytest.raises(DataError, match=r"2 files hold many images each \(an array of 3 x 8 x 9 x 3\)"):
        import_source(source, data)

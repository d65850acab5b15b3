"""VIA 1 and 2: shapes, lists and objects of regions, projects, CSV, the attribute that holds the class, and broken files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segpipe.data.formats.annotations.tools.via import read_via
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import ReadOptions
from segpipe.errors import ConfigError, DataError
from tests.worlds.layouts import HEIGHT, WIDTH, import_source, items, mask_of, photo


def region(name: str, attributes: Any, **shape: Any) -> dict[str, Any]:
    return {"shape_attributes": {"name": name, **shape}, "region_attributes": attributes}


def square(x: float, y: float, edge: float, **attributes: Any) -> dict[str, Any]:
    xs, ys = [x, x + edge, x + edge, x], [y, y, y + edge, y + edge]
    return region("polygon", attributes, all_points_x=xs, all_points_y=ys)


def entry(name: str, regions: Any) -> dict[str, Any]:
    return {"filename": name, "size": 1234, "regions": regions, "file_attributes": {}}


def write_via(path: Path, *entries: dict[str, Any], project: dict[str, Any] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {f"{e['filename']}{e['size']}": e for e in entries}
    if project is not None:
        content = {"_via_settings": {}, "_via_img_metadata": content, "_via_attributes": project}
    path.write_text(json.dumps(content), encoding="utf-8-sig")
    return path


def read(source: Path, **options: Any) -> np.ndarray:
    draw = read_via(SourceProbe(source), ReadOptions(**options)).items[0].draw
    assert draw is not None
    return draw(HEIGHT, WIDTH).mask


def test_shapes_of_every_kind(source: Path, data: Path) -> None:
    photo(source / "a.png")
    photo(source / "b.png")
    regions = [
        square(1, 1, 3, kind="cell"),
        region("rect", {"kind": "axon"}, x=8, y=2, width=4, height=2),
        region("circle", {"kind": "cell"}, cx=6, cy=12, r=3),
        region("ellipse", {"kind": "axon"}, cx=18, cy=10, rx=5, ry=2, theta=1.5707963),
        region("polyline", {"kind": "cell"}, all_points_x=[1, 2], all_points_y=[1, 2]),
        region("point", {"kind": "cell"}, cx=1, cy=1),
        square(14, 0, 2),
    ]
    write_via(source / "via_region_data.json", entry("a.png", regions), entry("b.png", []))
    report = import_source(source, data)
    assert (report.format, report.classes.names) == ("via", ["background", "axon", "cell"])
    assert report.classes_from == "the attribute kind"
    mask = mask_of(items(data)["a"])
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    circle = np.hypot(columns - 6, rows - 12)
    assert (mask[circle < 2.7] == 2).all()
    assert not (mask[(circle > 3.3) & (circle < 5)] == 2).any()
    ellipse = np.hypot((columns - 18) / 2, (rows - 10) / 5)  # theta turns it by a quarter
    assert (mask[ellipse < 0.85] == 1).all()
    assert not (mask[(ellipse > 1.2) & (columns > 13)] == 1).any()
    assert (mask[1:4, 1:4] == 2).all()
    assert (mask[2:4, 8:12] == 1).all()
    assert (mask == 255).sum() == 4  # the region without a class
    assert "regions without a class, whose pixels are ignored: 1" in report.notes
    for kind in ("point", "polyline"):
        assert f"shapes without an area, not drawn ({kind}): 1" in report.notes
    assert report.images == 2


def test_regions_as_an_object_and_splits(source: Path, data: Path) -> None:
    for split, n in (("train", 3), ("val", 2)):
        photo(source / split / f"{split}.jpg")
        regions = {str(k): square(1 + 5 * k, 1, 2, name="balloon") for k in range(n)}
        write_via(source / split / "via_region_data.json", entry(f"{split}.jpg", regions))
    report = import_source(source, data)
    assert report.splits["train"] + report.splits.get("test", 0) == 1
    assert {key: int(mask_of(item).sum()) for key, item in items(data).items()} == {"train": 12, "val": 8}


def test_one_class_without_attributes(source: Path) -> None:
    photo(source / "a.png")
    write_via(source / "annotations.json", entry("a.png", [square(1, 1, 3), square(8, 8, 2)]))
    result = read_via(SourceProbe(source), ReadOptions())
    assert result.classes is not None
    assert result.classes.names == ["background", "object"]
    assert read(source).sum() == 13


def test_options_of_projects_and_checkboxes(source: Path) -> None:
    photo(source / "a.png")
    project = {"region": {"kind": {"type": "dropdown", "options": {"1": "leaf", "2": "stem"}}}}
    regions = [square(1, 1, 3, kind="1"), square(8, 8, 2, kind={"2": True, "1": False})]
    write_via(source / "project.json", entry("a.png", regions), project=project)
    result = read_via(SourceProbe(source), ReadOptions())
    assert result.classes is not None
    assert result.classes.names == ["background", "leaf", "stem"]


def test_several_attributes_are_asked_about(source: Path, data: Path) -> None:
    photo(source / "a.png")
    regions = [square(1, 1, 3, kind="leaf", health="ill"), square(8, 8, 2, kind="stem", health="ill")]
    write_via(source / "a.json", entry("a.png", regions))
    with pytest.raises(DataError, match=r"health: ill; kind: leaf, stem.*`--attribute health` or `--attribute kind`"):
        import_source(source, data)
    assert import_source(source, data, read={"attribute": "kind"}).classes.names == ["background", "leaf", "stem"]
    report = import_source(source, data, read={"attribute": "health"}, replace=True)
    assert report.classes.names == ["background", "ill"]
    report = import_source(source, data, read={"attribute": "none"}, replace=True)
    assert report.classes.names == ["background", "object"]
    with pytest.raises(ConfigError, match=r"--attribute: .*found colour, expected health or kind"):
        import_source(source, data, read={"attribute": "colour"})


def test_names_of_regions_are_no_classes(source: Path, data: Path) -> None:
    photo(source / "a.png")
    write_via(source / "a.json", entry("a.png", [square(2 * n, 1, 2, id=f"tree {n}") for n in range(10)]))
    with pytest.raises(DataError, match=r"may be a name, not a class.*tree 0.*`--attribute id`, or `--attribute none`"):
        import_source(source, data)
    assert import_source(source, data, read={"attribute": "none"}).classes.names == ["background", "object"]
    report = import_source(source, data, read={"attribute": "id"}, replace=True)
    assert len(report.classes.classes) == 11


def test_a_shape_that_cannot_be_drawn_does_not_become_background(source: Path) -> None:
    for name in ("a.png", "b.png"):
        photo(source / name)
    write_via(source / "a.json", entry("a.png", [square(1, 1, 3)]), entry("b.png", [region("spline", {})]))
    result = read_via(SourceProbe(source), ReadOptions())
    assert [item.name for item in result.items] == ["a"]
    ((name, reason),) = result.skipped
    assert (name, "found spline" in reason) == ("a.json: b.png", True)


def test_csv(source: Path, data: Path) -> None:
    for name in ("a.png", "b.png"):
        photo(source / name)
    path = source / "via_export_csv.csv"
    columns = ["filename", "file_size", "file_attributes", "region_count", "region_id"]
    columns += ["region_shape_attributes", "region_attributes"]
    with path.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        for number, shape in enumerate([square(1, 1, 3, kind="leaf"), square(8, 8, 2, kind="stem")]):
            attributes = (json.dumps(shape["shape_attributes"]), json.dumps(shape["region_attributes"]))
            writer.writerow(["a.png", 1, "{}", 2, number, *attributes])
        writer.writerow(["b.png", 1, "{}", 0, 0, "{}", "{}"])
        writer.writerow(["b.png", 1, "{}", 0, 0, "{", "{}"])
    report = import_source(source, data)
    assert (report.format, report.images) == ("via", 2)
    assert np.bincount(mask_of(items(data)["a"]).ravel()).tolist()[1:] == [9, 4]
    ((name, reason),) = report.skipped
    assert name == "via_export_csv.csv: line 5"
    assert "not valid JSON" in reason


BROKEN: dict[str, tuple[Any, str]] = {
    "lists of two lengths": (region("polygon", {}, all_points_x=[1, 2, 3], all_points_y=[1, 2]), "differ in length"),
    "two points": (region("polygon", {}, all_points_x=[1, 2], all_points_y=[1, 2]), "fewer than 3 points"),
    "a text": (region("rect", {}, x="a", y=1, width=1, height=1), "no valid `x`"),
    "no area": (region("rect", {}, x=1, y=1, width=0, height=1), "without an area"),
    "no radius": (region("circle", {}, cx=1, cy=1, r=0), "invalid centre or radius"),
    "outside": (square(90, 90, 3), "outside its image"),
    "a word": ("polygon", "not a region"),
    "nothing": ({}, "not a region"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_region_is_left_out(source: Path, fault: str) -> None:
    broken, reason = BROKEN[fault]
    photo(source / "a.png")
    write_via(source / "a.json", entry("a.png", [square(1, 1, 3), broken]))
    result = read_via(SourceProbe(source), ReadOptions())
    ((name, message),) = result.skipped
    assert name.startswith("a.json: a.png: region 1")
    assert reason in message


def test_broken_files(source: Path, data: Path) -> None:
    photo(source / "a.png")
    write_via(
        source / "a.json", entry("gone.png", [square(1, 1, 3)]), entry("../b.png", []), {"filename": "", "size": 1}
    )
    photo(source.parent / "b.png")
    with pytest.raises(DataError, match=r"no annotated image can be used.*missing image"):
        import_source(source, data)
    (source / "a.json").write_text('{"regions": "shape_attributes", "x": {"filename": 3, "region_attributes": 1}')
    with pytest.raises(DataError, match="not valid JSON"):
        read_via(SourceProbe(source), ReadOptions())
    (source / "a.json").write_text('{"project": {"pname": "x"}, "_via_data_format": 1, "view": {}, "metadata": {}}')
    with pytest.raises(DataError, match="VIA 3"):
        import_source(source, data)

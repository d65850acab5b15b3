"""GeoJSON in pixels, as QuPath exports it: holes, kinds of objects, classes, names of images, and coordinates of maps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segpipe.data.formats.annotations.tools.geojson import read_geojson
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import ReadOptions
from segpipe.errors import ConfigError, DataError
from tests.worlds.layouts import HEIGHT, WIDTH, import_source, instances_of, items, mask_of, photo


def ring(x: float, y: float, edge: float) -> list[list[float]]:
    return [[x, y], [x + edge, y], [x + edge, y + edge], [x, y + edge], [x, y]]


def geometry(*rings: Any, kind: str = "Polygon", **more: Any) -> dict[str, Any]:
    return {"type": kind, "coordinates": [*rings], **more}


def feature(shape: dict[str, Any] | None, label: Any = None, kind: str = "annotation", **more: Any) -> dict[str, Any]:
    properties: dict[str, Any] = {"objectType": kind, **more}
    if label is not None:
        properties["classification"] = label if isinstance(label, dict) else {"name": label}
    return {"type": "Feature", "id": "1-2", "geometry": shape, "properties": properties}


def square(x: float, y: float, edge: float, label: Any = None, kind: str = "annotation", **more: Any) -> dict[str, Any]:
    return feature(geometry(ring(x, y, edge)), label, kind, **more)


def write_geojson(path: Path, *features: Any, image: str | None = "", content: Any = None, **more: Any) -> Path:
    """Write a collection and, unless `image` is None, an image of its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if image is not None:
        photo(path.with_name(image or f"{path.stem}.png"))
    content = {"type": "FeatureCollection", "features": features, **more} if content is None else content
    path.write_text(json.dumps(content), encoding="utf-8-sig")
    return path


def counts(mask: np.ndarray) -> dict[int, int]:
    return {value: int((mask == value).sum()) for value in np.unique(mask).tolist() if value}


def read(source: Path, **options: Any) -> tuple[list[str], dict[int, int]]:
    """Return the names of the classes, and the pixels of each in the first image."""
    result = read_geojson(SourceProbe(source), ReadOptions(**options))
    assert result.classes is not None
    draw = result.items[0].draw
    assert draw is not None
    return result.classes.names, counts(draw(HEIGHT, WIDTH).mask)


def test_holes_islands_and_colours(source: Path, data: Path) -> None:
    with_hole = [ring(1, 1, 10), ring(3, 3, 6)]
    island = [ring(5, 5, 2)]
    write_geojson(
        source / "a.geojson",
        feature(geometry(with_hole, island, kind="MultiPolygon"), {"name": "Tumor", "colorRGB": -3670016}),
        feature(geometry(ring(14, 2, 4), ring(15, 3, 1)), {"name": "Stroma", "color": [150, 200, 150]}),
    )
    report = import_source(source, data)
    assert report.format == "geojson"
    assert [(c.name, c.value, c.color) for c in report.classes.classes][1:] == [
        ("Stroma", 1, (150, 200, 150)),
        ("Tumor", 2, (200, 0, 0)),
    ]
    mask = mask_of(items(data)["a"])
    expected = np.zeros_like(mask)
    expected[1:11, 1:11] = 2
    expected[3:9, 3:9] = 0
    expected[5:7, 5:7] = 2
    expected[2:6, 14:18] = 1
    expected[3, 15] = 0
    np.testing.assert_array_equal(mask, expected)
    assert len(np.unique(instances_of(items(data)["a"]))) == 3


def test_kinds_of_objects(source: Path) -> None:
    cell = square(2, 2, 3, "Positive", "cell") | {"nucleusGeometry": geometry(ring(3, 3, 1))}
    write_geojson(
        source / "a.geojson",
        cell,
        square(8, 2, 2, "Negative", "detection"),
        square(0, 0, 16),  # an annotation without a class around the others: the region of analysis
        square(12, 8, 2),  # one around nothing: its class is not known
        square(0, 0, 17, "Region*"),
        square(12, 12, 3, "Ignore*"),
        square(1, 1, 4, "Positive", "tile"),
        feature(geometry(ring(18, 1, 3), plane={"c": -1, "z": 2, "t": 0}), "Positive"),
        feature({"type": "LineString", "coordinates": [[1, 1], [2, 2]]}, "Positive"),
        feature({"type": "Point", "coordinates": [1, 1]}, "Positive"),
    )
    result = read_geojson(SourceProbe(source), ReadOptions())
    assert read(source) == (["background", "Negative", "Positive"], {1: 4, 2: 9, 255: 4 + 9})
    notes = {note.rpartition(": ")[0]: note.rpartition(": ")[2] for note in result.notes}
    assert notes["nuclei of cells, not drawn: the outline of the cell is"] == "1"
    assert notes["regions of analysis (class Region*, or without a class around other objects), not drawn"] == "2"
    assert notes["shapes without a class, whose pixels are ignored"] == "1"
    assert notes["shapes on other planes than the first, not drawn"] == "1"
    for kind in ("tile", "LineString", "Point"):
        assert notes[f"shapes without an area, not drawn ({kind})"] == "1"


@pytest.mark.parametrize(
    ("content", "n"),
    [
        ([square(1, 1, 3, "a"), square(8, 8, 2, "a")], 13),
        (square(1, 1, 3, "a"), 9),
        (geometry(ring(1, 1, 3)), 9),
        ({"type": "GeometryCollection", "geometries": [geometry(ring(1, 1, 3)), geometry(ring(8, 8, 2))]}, 13),
        ([{"type": "FeatureCollection", "features": [square(1, 1, 3, "a")]}], 9),
        ({"type": "FeatureCollection", "features": [square(1, 1, 3) | {"properties": None}]}, 9),
        ([square(1, 1, 3) | {"properties": {"classification": "a"}}], 9),
    ],
)
def test_collections_lists_and_single_shapes(source: Path, content: Any, n: int) -> None:
    write_geojson(source / "a.geojson", content=content)
    names, pixels = read(source)
    assert len(names) == 2
    assert pixels == {1: n}


def test_objects_of_older_versions_and_cells_without_classes(source: Path) -> None:
    region = square(0, 0, 16) | {"id": "PathAnnotationObject"}
    cells = [square(x, 2, 3) | {"id": "PathCellObject"} for x in (1, 8)]
    for raw in (region, *cells):
        del raw["properties"]["objectType"]
    write_geojson(source / "a.json", region, *cells)
    assert read(source) == (["background", "cell"], {1: 18})


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("a.ome.tif", "a.ome.geojson"),
        ("a.ome.tif", "a.geojson"),
        ("a.tif", "a.svs.geojson"),
        ("a.tiff", "a.tiff.geojson"),
        ("b.x.png", "b.x.geojson"),
        ("images/a.png", "geojson/a.geojson"),
        ("images/site1/a.png", "annotations/site1/a.geojson"),
    ],
)
def test_names_of_images(source: Path, image: str, name: str) -> None:
    path = photo(source / image)
    if "site1" in image:
        photo(source / image.replace("site1", "site2"))
    write_geojson(source / name, square(1, 1, 3, "a"), image=None)
    result = read_geojson(SourceProbe(source), ReadOptions())
    assert [item.image for item in result.items] == [path]


def test_two_files_for_one_image(source: Path, data: Path) -> None:
    write_geojson(source / "a.ome.geojson", square(1, 1, 3, "a"), image="a.ome.tif")
    second = write_geojson(source / "a.geojson", square(1, 1, 4, "a"), image=None)
    with pytest.raises(DataError, match=r"2 annotations of this image differ: keep one of their files"):
        import_source(source, data)
    second.unlink()
    assert import_source(source, data).masks == 1


def test_images_that_cannot_be_assigned(source: Path, data: Path, tmp_path: Path) -> None:
    write_geojson(source / "sub" / "a.geojson", square(1, 1, 3, "a"), image=None)
    with pytest.raises(DataError, match=r"image of its name.*missing image"):
        import_source(source, data)
    photo(tmp_path / "pictures" / "a.png")
    assert import_source(source, data, read={"images": str(tmp_path / "pictures")}).masks == 1
    photo(source / "x" / "a.png")
    photo(source / "y" / "a.png")
    with pytest.raises(DataError, match=r"several files could be.*x/a\.png, y/a\.png"):
        import_source(source, data, replace=True)
    write_geojson(source / "cell.1.geojson", square(1, 1, 3, "a"), image="cell.png")
    reasons = dict(read_geojson(SourceProbe(source), ReadOptions(images="x")).skipped)
    assert "missing image" in reasons["cell.1.geojson"]


def test_a_property_that_holds_the_class(source: Path, data: Path) -> None:
    shapes = [square(1, 1, 3, label="leaf", grade="high"), square(8, 8, 2, label="leaf", grade="low")]
    for number, raw in enumerate(shapes):
        del raw["properties"]["classification"]
        raw["properties"] |= {"label": "leaf", "name": f"shape {number}"}
    shapes.append(square(14, 8, 3) | {"properties": {"label": "stem", "grade": "low", "name": "shape 9"}})
    write_geojson(source / "a.geojson", *shapes)
    with pytest.raises(DataError, match=r"more than one property.*grade: high, low; label: leaf, stem"):
        import_source(source, data)
    assert read(source, attribute="none") == (["background", "object"], {1: 22})
    assert read(source, attribute="label") == (["background", "leaf", "stem"], {1: 13, 2: 9})
    with pytest.raises(ConfigError, match="no shape has this property"):
        read(source, attribute="colour")


def test_names_of_objects_are_no_classes(source: Path, data: Path) -> None:
    shapes = [square(1, 1, 3, name="first"), square(8, 8, 2, name="second")]
    write_geojson(source / "a.geojson", *shapes)
    with pytest.raises(DataError, match=r"the property may be a name, not a class.*name: first, second"):
        import_source(source, data)
    assert read(source, attribute="none") == (["background", "object"], {1: 13})


@pytest.mark.parametrize(
    ("shapes", "more", "words"),
    [
        ([square(2, 2, 3, "a")], {"crs": {"type": "name", "properties": {"name": "EPSG:4326"}}}, "EPSG:4326"),
        ([square(-122.42, 37.77, 0.01, "a")], {}, "x -122.42 to -122.41"),
        ([square(12.49, 41.9, 0.02, "a"), square(12.6, 41.8, 0.02, "a")], {}, "longitudes and latitudes"),
        ([square(151.2, -33.9, 2, "a")], {}, "y -33.9 to -31.9"),
    ],
)
def test_coordinates_of_maps_are_refused(source: Path, data: Path, shapes: Any, more: Any, words: str) -> None:
    write_geojson(source / "a.geojson", *shapes, **more)
    with pytest.raises(DataError, match=f"geographic, not pixels.*{words}"):
        import_source(source, data)
    assert not data.exists()


def test_small_and_projected_coordinates(source: Path, data: Path) -> None:
    write_geojson(source / "a.geojson", square(2.2, 2.2, 0.9, "a"), square(-3, 4, 6, "a"))
    assert read(source)[1]  # one shape is larger than a pixel, and one reaches beyond the edge
    write_geojson(source / "a.geojson", square(500000, 4100000, 30, "a"))
    with pytest.raises(DataError, match="lies outside its image"):
        import_source(source, data)


BROKEN: dict[str, tuple[Any, str]] = {
    "two points": (feature(geometry([[1, 1], [2, 2], [1, 1]]), "a"), "fewer than 3 points"),
    "words": (feature(geometry([["a", "b"], [1, 1], [2, 2], [3, 3]]), "a"), "not a flat list"),
    "no geometry": (feature(None, "a"), "no geometry"),
    "an unknown geometry": (feature({"type": "Curve"}, "a"), "unknown type of geometry"),
    "no coordinates": (feature({"type": "Polygon"}, "a"), "no coordinates"),
    "four numbers": (feature(geometry([[1, 1, 1, 1]]), "a"), "not pairs"),
    "a long hole": (feature(geometry(ring(1, 1, 3), ring(0, 0, 1e8)), "a"), "much too large"),
    "outside": (square(90, 90, 3, "a"), "outside its image"),
    "not a feature": ("a", "not a feature"),
    "an infinite number": (feature(geometry([[1, 1], [2, float("inf")], [3, 1], [1, 1]]), "a"), "NaN or infinite"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_feature_is_left_out(source: Path, fault: str) -> None:
    broken, reason = BROKEN[fault]
    write_geojson(source / "a.geojson", square(1, 1, 3, "a"), broken)
    result = read_geojson(SourceProbe(source), ReadOptions())
    ((name, message),) = result.skipped
    assert name == "a.geojson: feature 1"
    assert reason in message
    assert read(source)[1] == {1: 9}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"type": "FeatureCollection", "features": 3}', "no list `features`"),
        ('{"type": "FeatureCollection", "features": [', "not valid JSON"),
        ('{"features": [], "x": "Polygon"}', "not GeoJSON"),
    ],
)
def test_a_broken_file_is_an_error_in_one_line(source: Path, text: str, reason: str) -> None:
    write_geojson(source / "a.geojson").write_text(text)
    with pytest.raises(DataError, match=reason) as raised:
        read_geojson(SourceProbe(source), ReadOptions())
    assert "\n" not in str(raised.value)

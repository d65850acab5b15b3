"""Supervisely: bitmaps, polygons with holes, rectangles, nested datasets, splits, and broken or hostile files."""

from __future__ import annotations

import base64
import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segpipe.data.formats.annotations.tools.supervisely import decode_bitmap, read_supervisely
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import ReadOptions
from segpipe.errors import DataError
from tests.worlds.layouts import HEIGHT, WIDTH, import_source, instances_of, items, mask_of, photo

FLAGS = np.array([[1, 1, 0], [0, 1, 1]], np.uint8)


def packed(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return base64.b64encode(zlib.compress(stream.getvalue())).decode()


def as_palette(flags: np.ndarray) -> Image.Image:
    """Return a bitmap as Supervisely writes it: two colours, the first one transparent."""
    picture = Image.fromarray(flags)
    picture.putpalette([0, 0, 0, 255, 255, 255])
    picture.info["transparency"] = 0
    return picture


def bitmap(title: str, x: Any, y: Any, data: str | None = None) -> dict[str, Any]:
    code = packed(as_palette(FLAGS)) if data is None else data
    return {"classTitle": title, "geometryType": "bitmap", "bitmap": {"data": code, "origin": [x, y]}}


def polygon(title: str, x: float, y: float, edge: float, *holes: Any, kind: str = "polygon") -> dict[str, Any]:
    exterior = [[x, y], [x + edge, y], [x + edge, y + edge], [x, y + edge]]
    exterior = [exterior[2], exterior[0]] if kind == "rectangle" else exterior
    return {"classTitle": title, "geometryType": kind, "points": {"exterior": exterior, "interior": [*holes]}}


def write_annotation(dataset: Path, name: str, objects: Any, **more: Any) -> Path:
    photo(dataset / "img" / name)
    path = dataset / "ann" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    size = {"height": HEIGHT, "width": WIDTH}
    path.write_text(json.dumps({"description": "", "tags": [], "size": size, "objects": objects, **more}))
    return path


def write_meta(source: Path, *classes: tuple[str, str, str]) -> None:
    entries = [{"title": title, "shape": shape, "color": color} for title, shape, color in classes]
    source.mkdir(parents=True, exist_ok=True)
    (source / "meta.json").write_text(json.dumps({"classes": entries, "tags": [], "projectType": "images"}))


def drawn(source: Path, index: int = 0) -> np.ndarray:
    draw = read_supervisely(SourceProbe(source), ReadOptions()).items[index].draw
    assert draw is not None
    return draw(HEIGHT, WIDTH).mask


def test_a_project(source: Path, data: Path) -> None:
    write_meta(source, ("road", "polygon", "#FF0000"), ("car", "bitmap", "#00FF10"), ("node", "point", "#0000FF"))
    hole = [[4, 4], [6, 4], [6, 6], [4, 6]]
    objects = [
        polygon("road", 2, 2, 8, hole),
        bitmap("car", 4, 4),
        polygon("car", 15, 2, 3, kind="rectangle"),
        {"classTitle": "node", "geometryType": "point", "points": {"exterior": [[1, 1]], "interior": []}},
        {"classTitle": "road", "geometryType": "line", "points": {"exterior": [[1, 1], [4, 4]], "interior": []}},
    ]
    write_annotation(source / "train", "a.png", objects)
    write_annotation(source / "val", "a.png", [polygon("road", 1, 1, 4)])
    write_annotation(source / "other" / "datasets" / "deep", "b.jpg", [], tags=[{"name": "test"}])
    report = import_source(source, data)
    assert report.format == "supervisely"
    assert [(c.name, c.value, c.color) for c in report.classes.classes][1:] == [
        ("road", 1, (255, 0, 0)),
        ("car", 2, (0, 255, 16)),
    ]
    assert report.splits == {"train": 1, "val": 1, "test": 1}
    mask = mask_of(items(data)["train-img-a"])
    expected = np.zeros_like(mask)
    expected[2:10, 2:10] = 1
    expected[4:6, 4:6] = 0
    expected[4:6, 4:7][FLAGS > 0] = 2
    expected[2:5, 15:18] = 2
    np.testing.assert_array_equal(mask, expected)
    assert len(np.unique(instances_of(items(data)["train-img-a"]))) == 4
    assert "shapes without an area, not drawn (line): 1" in report.notes
    assert "classes of shapes that are not drawn, left out: node" in report.notes
    assert "images without any shape, which are all background: 1" in report.notes
    assert report.unused == []


def test_later_objects_cover_earlier_ones(source: Path) -> None:
    write_annotation(source / "ds", "a.png", [polygon("small", 3, 3, 2), polygon("large", 1, 1, 6)])
    mask = drawn(source)  # there is no meta.json: classes in the order of their names
    assert np.unique(mask[1:7, 1:7]).tolist() == [1]
    write_annotation(source / "ds", "a.png", [polygon("large", 1, 1, 6), polygon("small", 3, 3, 2)])
    assert int((drawn(source) == 2).sum()) == 4


@pytest.mark.parametrize("mode", ["palette", "L", "1", "RGBA", "LA", "RGB"])
def test_bitmaps_of_every_kind(mode: str) -> None:
    grey = Image.fromarray(FLAGS * 255)
    pictures = {"palette": as_palette(FLAGS), "L": grey, "1": grey.convert("1"), "RGB": grey.convert("RGB")}
    if mode in ("RGBA", "LA"):
        picture = Image.new(mode, grey.size, (255,) * len(mode))  # white everywhere: alpha alone says what is set
        picture.putalpha(grey)
        pictures[mode] = picture
    np.testing.assert_array_equal(decode_bitmap(packed(pictures[mode]), (HEIGHT, WIDTH)), FLAGS > 0)


@pytest.mark.parametrize(("x", "y", "n"), [(-1, 0, 3), (0, -1, 2), (WIDTH - 2, HEIGHT - 1, 2), (0, 0, 4)])
def test_bitmaps_at_the_edges(source: Path, x: int, y: int, n: int) -> None:
    write_annotation(source / "ds", "a.png", [bitmap("car", x, y)])
    assert int(drawn(source).sum()) == n


PNG = zlib.decompress(base64.b64decode(packed(as_palette(FLAGS))))

BROKEN: dict[str, tuple[Any, str]] = {
    "not zlib": (bitmap("car", 0, 0, base64.b64encode(b"abc").decode()), "cannot be decompressed"),
    "not base64": (bitmap("car", 0, 0, "!!"), "cannot be decompressed"),
    "a bomb": (bitmap("car", 0, 0, base64.b64encode(zlib.compress(bytes(1 << 24))).decode()), "not a PNG of the size"),
    "a bomb after a PNG": (
        bitmap("car", 0, 0, base64.b64encode(zlib.compress(PNG + bytes(1 << 24))).decode()),
        "not a PNG of the size",
    ),
    "larger": (bitmap("car", 0, 0, packed(Image.new("1", (2000, 2000), 1))), "larger than its image"),
    "a truncated PNG": (bitmap("car", 0, 0, base64.b64encode(zlib.compress(PNG[:40])).decode()), "bitmap"),
    "no PNG": (bitmap("car", 0, 0, base64.b64encode(zlib.compress(b"GIF89a" * 9)).decode()), "not a PNG"),
    "origin": (bitmap("car", "a", 0), "invalid origin"),
    "outside": (bitmap("car", 99, 0), "without pixels in its image"),
    "empty": (bitmap("car", 0, 0, packed(as_palette(FLAGS * 0))), "without pixels in its image"),
    "no points": ({"classTitle": "car", "geometryType": "polygon"}, "without points"),
    "two corners": (polygon("car", 1, 1, 3) | {"points": {"exterior": [[1, 1], [2, 2]]}}, "fewer than 3 points"),
    "no title": ({"geometryType": "polygon"}, "no classTitle"),
    "a word": ("car", "is not an object"),
    "a hole": (polygon("car", 1, 1, 6, [[1, 1]]), "fewer than 3 points"),
    "a rectangle": (polygon("car", 1, 1, 3) | {"geometryType": "rectangle"}, "without exactly 2 points"),
    "triples": (polygon("car", 1, 1, 3) | {"points": {"exterior": [[1, 1, 1]]}}, "not pairs"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_object_is_left_out(source: Path, fault: str) -> None:
    broken, reason = BROKEN[fault]
    write_annotation(source / "ds", "a.png", [polygon("car", 1, 1, 4), broken])
    result = read_supervisely(SourceProbe(source), ReadOptions())
    ((name, message),) = result.skipped
    assert name == "ds/ann/a.png.json: object 1"
    assert reason in message


def test_names_and_sizes(source: Path) -> None:
    path = write_annotation(source / "ds", "a.png", [polygon("car", 1, 1, 4)], size=None)
    path.rename(path.with_name("a.json"))  # as older versions write it
    write_annotation(source / "ds", "b.png", [])
    (source / "ds" / "img" / "b.png").unlink()
    (source / "ds" / "ann" / "c.png.json").write_text("[]")
    result = read_supervisely(SourceProbe(source), ReadOptions())
    assert [item.name for item in result.items] == ["ds/img/a"]
    reasons = dict(result.skipped)
    assert "missing image" in reasons["ds/ann/b.png.json"]
    assert "not a JSON object" in reasons["ds/ann/c.png.json"]


def test_a_shape_that_cannot_be_drawn_does_not_become_background(source: Path) -> None:
    write_annotation(source / "ds", "a.png", [polygon("car", 1, 1, 4)])
    write_annotation(source / "ds", "b.png", [{"classTitle": "car", "geometryType": "cuboid", "points": []}])
    result = read_supervisely(SourceProbe(source), ReadOptions())
    assert [item.name for item in result.items] == ["ds/img/a"]
    ((name, reason),) = result.skipped
    assert (name, "found cuboid" in reason) == ("ds/ann/b.png.json", True)


def test_a_project_of_points_is_an_error(source: Path, data: Path) -> None:
    write_annotation(source / "ds", "a.png", [{"classTitle": "p", "geometryType": "point", "points": {}}])
    with pytest.raises(DataError, match=r"all pixels would be background.*\(point\): 1"):
        import_source(source, data)
    write_annotation(source / "ds", "a.png", [polygon("car", 1, 1, 4)], size={"height": 7, "width": 7})
    with pytest.raises(DataError, match="image size differs"):
        import_source(source, data)

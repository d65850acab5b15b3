"""labelme: shapes, groups, images next to their JSON or embedded in it, and broken files."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segpipe.data.formats.annotations.labelme import read_labelme, recognise_labelme
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import ReadOptions
from segpipe.data.images import read_image
from segpipe.errors import DataError
from tests.worlds.layouts import HEIGHT, LIMITS, WIDTH, import_source, instances_of, items, mask_of, photo


def shape(label: Any, points: Any, shape_type: Any = "polygon", group: int | None = None) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": shape_type, "group_id": group, "flags": {}}


def square(label: Any, x: float, y: float, edge: float, group: int | None = None) -> dict[str, Any]:
    return shape(label, [[x, y], [x + edge, y], [x + edge, y + edge], [x, y + edge]], group=group)


def write_labelme(path: Path, shapes: Any, **more: Any) -> Path:
    """Write a labelme file, with its image next to it unless `imagePath` is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if "imagePath" not in more:
        photo(path.with_suffix(".png"))
    size = {"imageHeight": HEIGHT, "imageWidth": WIDTH}
    path.write_text(
        json.dumps(
            {"version": "5.0", "imagePath": path.stem + ".png", "imageData": None, **size, "shapes": shapes, **more}
        )
    )
    return path


def test_shapes_classes_and_groups(source: Path, data: Path) -> None:
    write_labelme(
        source / "a.json",
        [
            square("nucleus", 1, 1, 4),
            square("cell", 8, 8, 3, group=1),
            square("cell", 14, 8, 3, group=1),
            square("nucleus", 18, 1, 2, group=1),
            shape("cell", [[20, 10], [24, 14]], "rectangle"),
            square("__ignore__", 0, 14, 4),
            square("_background_", 2, 2, 1),
        ],
    )
    write_labelme(source / "deep" / "b.json", [square("axon", 1, 1, 4)])
    report = import_source(source, data, "labelme")
    assert [(c.name, c.value) for c in report.classes.classes] == [
        ("_background_", 0),
        ("axon", 1),
        ("cell", 2),
        ("nucleus", 3),
    ]
    assert report.classes.ignore == (255,)
    mask, instances = mask_of(items(data)["a"]), instances_of(items(data)["a"])
    counts = {value: int((mask == value).sum()) for value in np.unique(mask).tolist()}
    assert counts == {0: HEIGHT * WIDTH - 15 - 18 - 16 - 4 - 16, 3: 15 + 4, 2: 18 + 16, 255: 16}
    assert len({instances[8, 8], instances[8, 14]}) == 1
    assert len({instances[8, 8], instances[1, 18], instances[11, 21], instances[1, 1]}) == 4
    assert items(data)["b"].image.exists()


def test_circles_match_the_distance_to_their_centre(source: Path) -> None:
    write_labelme(source / "a.json", [shape("cell", [[12.3, 9.1], [18.3, 9.1]], "circle")])
    (item,) = read_labelme(SourceProbe(source), ReadOptions()).items
    assert item.draw is not None
    drawn = item.draw(HEIGHT, WIDTH).mask > 0
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    distance = np.hypot(columns - 12.3, rows - 9.1)
    assert drawn[distance < 5.8].all()
    assert not drawn[distance > 6.2].any()


def test_an_image_file_takes_precedence_over_an_embedded_image(source: Path, data: Path, tmp_path: Path) -> None:
    embedded = base64.b64encode(photo(tmp_path / "embedded.png", seed=1).read_bytes()).decode()
    write_labelme(source / "a.json", [square("cell", 1, 1, 4)], imageData=embedded)
    write_labelme(source / "b.json", [square("cell", 1, 1, 4)], imageData=embedded, imagePath="C:\\scans\\gone.png")
    photo(source / "named.png", seed=2)
    write_labelme(source / "c.json", [square("cell", 1, 1, 4)], imagePath="../somewhere/named.png")
    report = import_source(source, data, "labelme")
    assert report.skipped == []
    assert "images taken from their JSON, because there is no file next to it: 1" in report.notes
    for key, original in (("a", source / "a.png"), ("b", tmp_path / "embedded.png"), ("c", source / "named.png")):
        assert np.array_equal(read_image(items(data)[key].image, LIMITS), read_image(original, LIMITS))
        assert (mask_of(items(data)[key]) > 0).sum() == 16


BROKEN_SHAPES = {
    "two points": (shape("cell", [[1, 1], [2, 2]]), "fewer than 3 points"),
    "a line": (shape("cell", [[1, 1], [2, 2], [5, 5]], "linestrip"), "has no area"),
    "a point": (shape("cell", [[1, 1]], "point"), "has no area"),
    "an unknown kind": (shape("cell", [[1, 1]], "spline"), "shape type that is not supported"),
    "three corners": (shape("cell", [[1, 1], [2, 2], [3, 3]], "rectangle"), "without exactly 2 points"),
    "no radius": (shape("cell", [[1, 1], [1, 1]], "circle"), "invalid radius"),
    "no label": (shape(None, [[1, 1], [2, 2], [3, 1]]), "has no label"),
    "NaN": (shape("cell", [[1, 1], [2, float("nan")], [3, 1]]), "NaN or infinite"),
    "triples": (shape("cell", [[1, 1, 1]]), "not pairs"),
    "words": (shape("cell", [["a", "b"], [1, 1], [2, 2]]), "not a flat list"),
    "outside": (square("cell", 90, 90, 3), "outside its image"),
    "not a shape": ("cell", "is not a shape"),
}


@pytest.mark.parametrize("fault", BROKEN_SHAPES)
def test_a_broken_shape_is_left_out(source: Path, fault: str) -> None:
    broken, reason = BROKEN_SHAPES[fault]
    write_labelme(source / "a.json", [square("cell", 1, 1, 4), broken])
    result = read_labelme(SourceProbe(source), ReadOptions())
    ((name, message),) = result.skipped
    assert name == "a.json: shape 1"
    assert reason in message
    assert result.items[0].draw is not None
    assert (result.items[0].draw(HEIGHT, WIDTH).mask > 0).sum() == 16


BROKEN_FILES = {
    "no shapes": ({"shapes": None}, "no list `shapes`"),
    "no size": ({"imageWidth": None}, "has no image size"),
    "no image": ({"imagePath": "gone.png"}, "has no image"),
    "an image that is text": (
        {"imagePath": "gone.png", "imageData": base64.b64encode(b"x" * 90).decode()},
        "has no image",
    ),
    "not base64": ({"imagePath": "gone.png", "imageData": "€" * 99}, "not base64"),
    "an image elsewhere": ({"imagePath": "/etc/passwd"}, "has no image"),
}


@pytest.mark.parametrize("fault", BROKEN_FILES)
def test_a_broken_file_is_left_out(source: Path, fault: str) -> None:
    changes, reason = BROKEN_FILES[fault]
    write_labelme(source / "b.json", [square("cell", 1, 1, 4)])
    write_labelme(source / "a.json", **{"shapes": [square("cell", 1, 1, 4)], **changes})
    result = read_labelme(SourceProbe(source), ReadOptions())
    ((name, message),) = result.skipped
    assert name == "a.json"
    assert reason in message
    assert [item.name for item in result.items] == ["b"]


def test_an_embedded_image_that_is_truncated(source: Path, data: Path, tmp_path: Path) -> None:
    content = base64.b64encode(photo(tmp_path / "x.png").read_bytes()).decode()
    write_labelme(
        source / "a.json",
        [square("cell", 1, 1, 4)],
        imagePath="gone.png",
        imageData=content[:200] + "!" + content[201:],
    )
    write_labelme(source / "b.json", [square("cell", 1, 1, 4)], imagePath="gone.png", imageData=content[:400])
    write_labelme(source / "c.json", [square("cell", 1, 1, 4)])
    report = import_source(source, data, "labelme")
    ((name, reason),) = report.skipped
    assert name.endswith("a.png")
    assert "not base64" in reason
    with pytest.raises(DataError, match=r"b\.png"):  # validation reports it like any truncated image
        read_image(items(data)["b"].image, LIMITS)
    assert (mask_of(items(data)["c"]) > 0).sum() == 16


def test_two_files_for_one_image_and_no_file_at_all(source: Path) -> None:
    with pytest.raises(DataError, match=r"no labelme files.*--format"):
        read_labelme(SourceProbe(source), ReadOptions())
    assert recognise_labelme(SourceProbe(source)) is None
    write_labelme(source / "a.json", [square("cell", 1, 1, 4)])
    write_labelme(source / "b.json", [square("cell", 1, 1, 4)])
    write_labelme(source / "c.json", [square("cell", 1, 1, 4)], imagePath="a.png")
    result = read_labelme(SourceProbe(source), ReadOptions())
    assert result.skipped == [("a.png", "2 JSON files name this image")]
    assert [item.name for item in result.items] == ["b"]
    assert recognise_labelme(SourceProbe(source)) == "a.json with `shapes` and `imagePath`"

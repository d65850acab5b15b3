"""labelme: shapes, groups, images next to their JSON or embedded in it, and broken files."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segpipe.data.formats.annotations.labelme import read_labelme, recognise_labelme
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import ReadOptions
from segpipe.data.images import read_image
from segpipe.data.images.raster import as_upright
from segpipe.errors import DataError
from tests.worlds.layouts import HEIGHT, LIMITS, WIDTH, import_source, instances_of, items, mask_of, photo


def shape(label: Any, points: Any, shape_type: Any = "polygon", group: int | None = None) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": shape_type, "group_id": group, "flags": {}}


def square(label: Any, x: float, y: float, edge: float, group: int | None = None) -> dict[str, Any]:
    return shape(label, [[x, y], [x + edge, y], [x + edge, y + edge], [x, y + edge]], group=group)


def mask_shape(label: str, x: int, y: int, pixels: np.ndarray, box: tuple[int, int] | None = None) -> dict[str, Any]:
    """Return a shape `mask`, as labelme writes it: its box includes the last row and column."""
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "PNG")
    rows, columns = box or pixels.shape
    corners = [[x, y], [x + columns - 1, y + rows - 1]]
    return shape(label, corners, "mask") | {"mask": base64.b64encode(stream.getvalue()).decode()}


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
    assert instances[2, 2] == 0 < instances[1, 1]  # a hole
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
    "a line": (shape("cell", [[1, 1], [2, 2], [5, 5]], "linestrip"), "of the class cell, which have no area"),
    "a point": (shape("cell", [[1, 1]], "point"), "of the class cell, which have no area"),
    "an unknown kind": (shape("cell", [[1, 1]], "spline"), "shape type that is not supported"),
    "three corners": (shape("cell", [[1, 1], [2, 2], [3, 3]], "rectangle"), "without exactly 2 points or 4"),
    "three corners of a turned one": (shape("cell", [[1, 1], [2, 2], [3, 3]], "rotation"), "without exactly 4 points"),
    "no radius": (shape("cell", [[1, 1], [1, 1]], "circle"), "invalid radius"),
    "no label": (shape(None, [[1, 1], [2, 2], [3, 1]]), "has no label"),
    "NaN": (shape("cell", [[1, 1], [2, float("nan")], [3, 1]]), "NaN or infinite"),
    "triples": (shape("cell", [[1, 1, 1]]), "not pairs"),
    "words": (shape("cell", [["a", "b"], [1, 1], [2, 2]]), "not a flat list"),
    "not a shape": ("cell", "is not a shape"),
    "a mask without pixels": (shape("cell", [[1, 1], [2, 2]], "mask"), "mask without pixels"),
    "a mask of another size": (mask_shape("cell", 1, 1, np.ones((9, 9)), box=(3, 3)), "size of its box"),
    "a mask larger than its image": (mask_shape("cell", 0, 0, np.ones((400, 400))), "larger than its image"),
    "a mask that is not an image": (shape("cell", [[1, 1], [2, 2]], "mask") | {"mask": "QUJD"}, "not an image"),
    "a mask that is not base64": (shape("cell", [[1, 1], [2, 2]], "mask") | {"mask": "€"}, "not base64"),
}


@pytest.mark.parametrize("fault", BROKEN_SHAPES)
def test_an_image_with_a_broken_shape_is_not_used(source: Path, data: Path, fault: str) -> None:
    """Otherwise the pixels of that shape would be background."""
    broken, reason = BROKEN_SHAPES[fault]
    write_labelme(source / "a.json", [square("cell", 1, 1, 4), broken])
    write_labelme(source / "b.json", [square("cell", 1, 1, 4)])
    report = import_source(source, data)
    ((name, message),) = report.skipped
    assert name in ("a", "a.json: shape 1")
    assert reason in message
    assert list(items(data)) == ["b"]
    assert any("for example a; left out (--unlabelled keep" in note for note in report.notes)
    report = import_source(source, data, unlabelled="keep", replace=True)
    assert items(data)["a"].mask is None


def test_a_shape_outside_its_image_changes_nothing(source: Path, data: Path) -> None:
    write_labelme(source / "a.json", [square("cell", 1, 1, 4), square("cell", 90, 90, 3)])
    report = import_source(source, data)
    assert report.skipped == [("a.json: shape 1", "lies outside its image")]
    assert (mask_of(items(data)["a"]) > 0).sum() == 16


BROKEN_FILES = {
    "no shapes": ({"shapes": None}, "no list `shapes`"),
    "half a size": ({"imageWidth": None}, "has no image size"),
    "a huge size": ({"imageWidth": 10**7, "imageHeight": 10**7}, "too many pixels"),
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


def test_masks_are_placed_at_their_box(source: Path, data: Path) -> None:
    pixels = np.random.default_rng(0).random((5, 7)) < 0.5
    beyond = np.ones((4, 4))
    write_labelme(
        source / "a.json",
        [
            mask_shape("cell", 3, 2, pixels * 255, box=(5, 7)),
            mask_shape("nucleus", WIDTH - 2, HEIGHT - 1, beyond),
            mask_shape("axon", 12, 9, np.ones((2, 3)), box=(1, 2)),  # tools that leave out the last row and column
        ],
    )
    report = import_source(source, data)
    assert report.skipped == []
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[2:7, 3:10][pixels] = 2
    expected[HEIGHT - 1 :, WIDTH - 2 :] = 3
    expected[9:11, 12:15] = 1
    np.testing.assert_array_equal(mask_of(items(data)["a"]), expected)


def test_parts_of_an_instance_may_be_masks_and_outlines(source: Path, data: Path) -> None:
    parts = [mask_shape("cell", 1, 1, np.ones((2, 2))) | {"group_id": 4}, square("cell", 8, 8, 3, group=4)]
    write_labelme(source / "a.json", [*parts, mask_shape("cell", 15, 1, np.ones((2, 2))) | {"group_id": None}])
    import_source(source, data)
    instances = instances_of(items(data)["a"])
    assert (instances[1, 1] == instances[9, 9] != instances[1, 15]) and instances[1, 15] > 0
    assert sorted(np.bincount(instances.ravel())[1:].tolist()) == [4, 13]


RECTANGLES = {
    "two points": ("rectangle", [[4, 3], [10, 8]]),
    "the two other points": ("rectangle", [[10, 3], [4, 8]]),
    "four corners": ("rectangle", [[4, 3], [10, 3], [10, 8], [4, 8]]),
    "four corners row by row": ("rectangle", [[4, 3], [10, 3], [4, 8], [10, 8]]),
    "a rotation by 0": ("rotation", [[10, 3], [10, 8], [4, 8], [4, 3]]),
    "an oriented rectangle": ("oriented_rectangle", [[4, 3], [10, 3], [10, 8], [4, 8]]),
    "a quadrilateral": ("quadrilateral", [[4, 3], [10, 3], [10, 8], [4, 8]]),
}


@pytest.mark.parametrize("case", RECTANGLES)
def test_rectangles_of_two_and_four_points(source: Path, data: Path, case: str) -> None:
    kind, points = RECTANGLES[case]
    write_labelme(source / "a.json", [shape("cell", points, kind)])
    import_source(source, data)
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[3:8, 4:10] = 1
    np.testing.assert_array_equal(mask_of(items(data)["a"]), expected)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 1, 3), (3, 1, 0, 2)])
def test_a_turned_rectangle_in_any_order_of_corners(source: Path, data: Path, order: tuple[int, ...]) -> None:
    corners = np.array([[12, 2], [19, 9], [12, 16], [5, 9]])
    kind = "rotation" if order[0] == 0 else "rectangle"
    write_labelme(source / "a.json", [shape("cell", corners[list(order)].tolist(), kind)])
    import_source(source, data)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    distance = abs(columns - 12) + abs(rows - 9)
    mask = mask_of(items(data)["a"]) > 0
    assert mask[distance < 6.5].all()
    assert not mask[distance > 7.5].any()


PLACES = {
    "relative": ("ann/a.json", "img/a.png", "../img/a.png"),
    "of Windows": ("ann/a.json", "img/a.png", "..\\img\\a.png"),
    "of another machine": ("ann/a.json", "img/a.png", "C:\\work\\project\\img\\a.png"),
    "the name alone": ("labels/a.json", "images/a.png", "a.png"),
    "in another case": ("labels/a.json", "images/a.PNG", "a.png"),
    "the name of the JSON": ("labels/a.json", "images/a.png", "renamed.jpg"),
    "nothing": ("labels/a.json", "images/a.png", None),
    "deep": ("annotations/site1/a.json", "images/site1/a.png", "/data/images/site1/a.png"),
}


@pytest.mark.parametrize("case", PLACES)
def test_images_in_another_folder(source: Path, data: Path, case: str) -> None:
    json_name, image_name, image_path = PLACES[case]
    (source / image_name).parent.mkdir(parents=True)
    photo(source / image_name, seed=3)
    write_labelme(source / json_name, [square("cell", 1, 1, 4)], imagePath=image_path)
    report = import_source(source, data)
    assert (report.format, report.masks, report.unused) == ("labelme", 1, [])
    assert np.array_equal(read_image(items(data)["a"].image, LIMITS), read_image(source / image_name, LIMITS))


def test_an_image_is_never_guessed_among_several(source: Path, tmp_path: Path) -> None:
    for site in ("x", "y"):
        photo(source / "images" / site / "a.png")
    photo(tmp_path / "outside.png")
    write_labelme(source / "labels" / "a.json", [square("cell", 1, 1, 4)], imagePath="a.png")
    write_labelme(source / "labels" / "b.json", [square("cell", 1, 1, 4)], imagePath="../../outside.png")
    with pytest.raises(DataError, match=r"several images could be meant.*images/x/a\.png and images/y/a\.png"):
        read_labelme(SourceProbe(source), ReadOptions())
    write_labelme(source / "labels" / "c.json", [square("cell", 1, 1, 4)], imagePath="../images/y/a.png")
    result = read_labelme(SourceProbe(source), ReadOptions())
    assert [item.image for item in result.items] == [source / "images" / "y" / "a.png"]
    assert [name for name, _ in result.skipped] == ["labels/a.json", "labels/b.json"]


def test_the_folder_in_the_name_counts_more_than_the_folder_of_the_json(source: Path, data: Path) -> None:
    photo(source / "img" / "a.png", seed=1)
    photo(source / "ann" / "a.png", seed=2)  # a preview
    write_labelme(source / "ann" / "a.json", [square("cell", 1, 1, 4)], imagePath="D:\\project\\img\\a.png")
    import_source(source, data)
    assert np.array_equal(read_image(items(data)["a"].image, LIMITS), read_image(source / "img" / "a.png", LIMITS))


def test_the_embedded_image_counts_more_than_a_name_in_another_folder(source: Path, data: Path, tmp_path: Path) -> None:
    photo(source / "other" / "a.png", seed=2)
    embedded = base64.b64encode(photo(tmp_path / "a.png", seed=1).read_bytes()).decode()
    write_labelme(source / "ann" / "a.json", [square("cell", 1, 1, 4)], imagePath="a.png", imageData=embedded)
    import_source(source, data)
    assert np.array_equal(read_image(items(data)["a"].image, LIMITS), read_image(tmp_path / "a.png", LIMITS))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("as_stored", [False, True])
def test_annotations_of_turned_images(source: Path, data: Path, orientation: int, as_stored: bool) -> None:
    """Sizes tell whether a tool showed the stored image; labels are then turned with it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    source.mkdir(exist_ok=True)
    Image.fromarray(stored).save(source / "a.jpg", exif=exif)
    marked = np.zeros((HEIGHT, WIDTH), np.uint8)
    upright = as_upright(marked, orientation)
    drawn = marked if as_stored else upright
    height, width = drawn.shape
    sizes = {"imageHeight": height, "imageWidth": width}
    write_labelme(source / "a.json", [shape("cell", [[2, 1], [9, 5]], "rectangle")], imagePath="a.jpg", **sizes)
    import_source(source, data)
    expected = np.zeros((height, width), np.uint8)
    expected[1:5, 2:9] = 1
    if as_stored and orientation in (6, 8):  # by 180 degrees, sizes are the same, and viewers decide
        expected = as_upright(expected, orientation)
    np.testing.assert_array_equal(mask_of(items(data)["a"]), expected)


def test_an_image_of_another_size_is_refused(source: Path, data: Path) -> None:
    write_labelme(source / "a.json", [square("cell", 1, 1, 4)], imageHeight=HEIGHT * 2, imageWidth=WIDTH * 2)
    write_labelme(source / "b.json", [square("cell", 1, 1, 4)], imageHeight=None, imageWidth=None)
    report = import_source(source, data)
    ((_, reason),) = report.skipped
    assert "image size differs" in reason
    assert (mask_of(items(data)["b"]) > 0).sum() == 16
    assert list(items(data)) == ["b"]


def test_labels_of_points_alone_are_no_classes(source: Path, data: Path) -> None:
    tip = shape("tip", [[3, 3]], "point")
    write_labelme(source / "a.json", [square("cell", 1, 1, 4), tip, tip])
    write_labelme(source / "b.json", [square("cell", 1, 1, 4) | {"flags": {"blurred": True, "cut": False}}])
    report = import_source(source, data)
    assert report.classes.names == ["background", "cell"]
    assert report.masks == 2
    assert "lines and points labelled tip, which have no area; tip is not a class: 2" in report.notes
    assert "shapes with the flag blurred, imported like the others: 1" in report.notes


def test_a_source_of_lines_is_an_error(source: Path, data: Path) -> None:
    write_labelme(source / "a.json", [shape("crack", [[1, 1], [9, 9]], "linestrip")])
    with pytest.raises(DataError, match=r"no shape of a class can be used.*1 lines and points, which have no area"):
        import_source(source, data)
    write_labelme(source / "a.json", [])
    with pytest.raises(DataError, match=r"no shape of a class can be used.*1 files without shapes"):
        import_source(source, data)
    assert not data.exists()


def test_a_file_with_a_byte_order_mark(source: Path, data: Path) -> None:
    path = write_labelme(source / "a.json", [square("cell", 1, 1, 4)])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert import_source(source, data).masks == 1

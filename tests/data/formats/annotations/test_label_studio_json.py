"""Label Studio: the JSON and JSON-MIN exports, names of images, regions, brushes, and broken files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from segpipe.data.formats.annotations.label_studio_shapes import decode_brush
from segpipe.data.formats.annotations.shapes import Runs
from segpipe.data.formats.readings.choose import UnclearSource
from segpipe.data.images import read_image
from segpipe.errors import DataError
from tests.data.formats.annotations.test_coco import document
from tests.worlds.layouts import HEIGHT, LIMITS, WIDTH, import_source, instances_of, items, mask_of, photo

SIZES = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
GOLDEN_CODE = [
    0,
    0,
    0,
    192,
    57,
    27,
    254,
    39,
    0,
    194,
    127,
    246,
    192,
    48,
    159,
    253,
    176,
    12,
    39,
    255,
    136,
    192,
    35,
    255,
    195,
    96,
    0,
]
"""What label-studio-sdk 1.0 writes for 6 x 8 pixels, of which rows 1 to 3 of columns 2 to 6, and the lower left one, are set."""


def region(
    value: dict[str, Any], label: str | None = "cell", kind: str = "polygonlabels", **more: Any
) -> dict[str, Any]:
    labels = {} if label is None else {kind: [label]}
    return {**SIZES, "value": {**value, **labels}, "type": kind, "from_name": "label", "to_name": "image", **more}


def polygon(x: float, y: float, width: float, height: float, label: str = "cell") -> dict[str, Any]:
    """Return the region of an upright rectangle in pixels, as a polygon in percent."""
    corners = np.array([(x, y), (x + width, y), (x + width, y + height), (x, y + height)])
    return region({"points": (corners * 100 / (WIDTH, HEIGHT)).tolist(), "closed": True}, label)


def rectangle(x: float, y: float, width: float, height: float, rotation: float = 0, **more: Any) -> dict[str, Any]:
    value = {"x": x * 100 / WIDTH, "y": y * 100 / HEIGHT, "width": width * 100 / WIDTH, "height": height * 100 / HEIGHT}
    return region(value | {"rotation": rotation}, kind="rectanglelabels", **more)


def task(number: int, image: str, *results: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Return a task with one annotation for each list of regions."""
    annotations = [{"id": 10 * number + k, "completed_by": 1, "result": result} for k, result in enumerate(results)]
    return {"id": number, "annotations": annotations, "data": {"image": image}, "predictions": [], **more}


def write_export(source: Path, *tasks: dict[str, Any], name: str = "project-1.json") -> Path:
    path = source / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(tasks)))
    return path


def bits_of(value: int, width: int) -> str:
    return format(value, f"0{width}b")


def encode_brush(plane: np.ndarray, literal: bool = False) -> list[int]:
    """Return the code of the RGBA image whose four values are those of a plane, by its definition."""
    values = np.repeat(plane.ravel(), 4).tolist()
    text = bits_of(len(values), 32) + bits_of(7, 5) + "".join(bits_of(n - 1, 4) for n in (3, 4, 8, 16))
    position = 0
    while position < len(values):
        run = position
        while run < len(values) and values[run] == values[position] and run - position < 256:
            run += 1
        if literal:
            run = min(position + 16, len(values))
            text += "0" + "01" + bits_of(run - position - 1, 4) + "".join(bits_of(v, 8) for v in values[position:run])
        else:
            text += "1" + "10" + bits_of(run - position - 1, 8) + bits_of(values[position], 8)
        position = run
    text += "0" * (-len(text) % 8)
    return [int(text[k : k + 8], 2) for k in range(0, len(text), 8)]


def plane_of(runs: Runs) -> np.ndarray:
    assert isinstance(runs.code, np.ndarray)
    return np.repeat(np.arange(len(runs.code)) % 2 == 1, runs.code).reshape(runs.width, runs.height).T


def test_brushes_decode_as_label_studio_wrote_them() -> None:
    expected = np.zeros((6, 8), bool)
    expected[1:4, 2:7] = expected[5, 0] = True
    np.testing.assert_array_equal(plane_of(decode_brush(GOLDEN_CODE, 6, 8)), expected)


@pytest.mark.parametrize("literal", [False, True])
def test_brushes_decode_to_what_was_encoded(literal: bool) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        height, width = rng.integers(1, 40, 2).tolist()
        plane = rng.choice([0, 0, 7, 255], (height, width)).astype(np.uint8)
        decoded = decode_brush(encode_brush(plane, literal), height, width)
        np.testing.assert_array_equal(plane_of(decoded), plane > 0)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (None, "no run-length code"),
        ([1, 2, 300], "no run-length code"),
        ([0, 0], "cut short"),
        (GOLDEN_CODE[:-4], "cut short"),
        ([255, 255, 255, 255, *GOLDEN_CODE[4:]], "not that of its image"),
        ([*GOLDEN_CODE[:8], 255, 255, 255, 255, 255, 255], "broken"),
    ],
)
def test_broken_brushes(code: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        decode_brush(code, 6, 8)


def test_regions_of_each_kind(source: Path, data: Path) -> None:
    photo(source / "images" / "a.png")
    brush = np.zeros((HEIGHT, WIDTH), np.uint8)
    brush[14:17, 1:4] = 255
    ellipse = {"x": 80, "y": 75, "radiusX": 4 * 100 / WIDTH, "radiusY": 3 * 100 / HEIGHT, "rotation": 90}
    regions = [
        polygon(1, 1, 4, 3),
        rectangle(8, 2, 5, 4),
        region({"format": "rle", "rle": encode_brush(brush)}, "nucleus", "brushlabels"),
        region(ellipse, "axon", "ellipselabels"),
    ]
    write_export(source, task(1, "/data/upload/1/a1b2c3d4-a.png", regions))
    report = import_source(source, data)
    assert (report.format, report.skipped, report.unused) == ("label-studio", [], [])
    assert report.classes.names == ["background", "axon", "cell", "nucleus"]
    mask = mask_of(items(data)["a"])
    expected = np.zeros_like(mask)
    expected[1:4, 1:5] = expected[2:6, 8:13] = 2
    expected[brush > 0] = 3
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    distance = np.hypot((columns - 0.8 * WIDTH) / 3, (rows - 0.75 * HEIGHT) / 4)  # turned by 90 degrees
    assert (mask[distance < 0.85] == 1).all()
    assert not (mask[distance > 1.15] == 1).any()
    np.testing.assert_array_equal(np.where(mask == 1, 0, mask), expected)
    assert len(np.unique(instances_of(items(data)["a"]))) == 5


@pytest.mark.parametrize("degrees", [0, 30, 90, 200.5])
def test_rectangles_turn_around_their_upper_left_corner(source: Path, data: Path, degrees: float) -> None:
    """In pixels, and not in percent, in which an image that is not square would distort them."""
    photo(source / "a.png")
    write_export(source, task(1, "a.png", [rectangle(12, 9, 7, 4, degrees)]))
    import_source(source, data)
    angle = np.deg2rad(degrees)
    turn = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    corners = [turn @ corner + (12, 9) for corner in ((0, 0), (7, 0), (7, 4), (0, 4))]
    outline = np.array(corners, np.float32)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    points = np.stack([columns, rows], -1).reshape(-1, 2).tolist()
    inside = np.array([cv2.pointPolygonTest(outline, point, True) for point in points]).reshape(HEIGHT, WIDTH)
    mask = mask_of(items(data)["a"]) > 0
    assert mask[inside > 0.6].all()
    assert not mask[inside < -0.6].any()


NAMES = {
    "an upload": ("/data/upload/1/a1b2c3d4-a.png", "images/a1b2c3d4-a.png"),
    "an upload without its prefix": ("/data/upload/1/a1b2c3d4-a.png", "a.png"),
    "local files": ("/data/local-files/?d=site1%2Fimg%201.png", "site1/img 1.png"),
    "local files of Windows": ("/data/local-files/?d=scans\\site1\\a.png", "pictures/a.png"),
    "a URL": ("https://host.org/bucket/a.png?token=1/2", "images/a.png"),
    "a bucket": ("s3://bucket/deep/a.png", "deep/a.png"),
    "encoded": ("/data/upload/1/a1b2c3d4-caf%C3%A9_1.png", "images/a1b2c3d4-café_1.png"),
    "media of Windows": ("..\\..\\media\\upload\\1\\a1b2c3d4-a.png", "media/a1b2c3d4-a.png"),
}


@pytest.mark.parametrize("case", NAMES)
@pytest.mark.parametrize("minimal", [False, True])
def test_images_are_found(source: Path, data: Path, case: str, minimal: bool) -> None:
    name, image = NAMES[case]
    photo(source / image, seed=4)
    regions = [polygon(1, 1, 4, 3)]
    full = task(1, name, regions)
    values = [entry["value"] | SIZES for entry in regions]
    short = {"image": name, "id": 1, "label": values, "annotator": 1, "annotation_id": 3, "created_at": "2024"}
    write_export(source, short if minimal else full)
    report = import_source(source, data)
    assert (report.format, report.masks, report.skipped) == ("label-studio", 1, [])
    (item,) = items(data).values()
    assert np.array_equal(read_image(item.image, LIMITS), read_image(source / image, LIMITS))
    assert (mask_of(item) > 0).sum() == 12


def test_the_folder_decides_between_equal_names(source: Path, data: Path) -> None:
    for number, site in enumerate(("x", "y")):
        photo(source / site / "a.png", seed=number)
    url = "/data/local-files/?d=data/{}/a.png"
    write_export(source, *(task(k, url.format(site), [polygon(1, 1, 4, 3)]) for k, site in enumerate("yx", start=1)))
    assert import_source(source, data).masks == 2
    write_export(source, task(1, "a.png", [polygon(1, 1, 4, 3)]))
    with pytest.raises(DataError, match=r"several images could be meant.*x/a\.png and y/a\.png"):
        import_source(source, data, replace=True)


def test_tasks_without_an_annotation_are_not_background(source: Path, data: Path) -> None:
    for name in "abcde":
        photo(source / f"{name}.png")
    cancelled = task(3, "c.png", [polygon(1, 1, 4, 3)])
    cancelled["annotations"][0]["was_cancelled"] = True
    predicted = task(4, "d.png", predictions=[{"result": [polygon(1, 1, 4, 3)]}])
    write_export(
        source, task(1, "a.png", [polygon(1, 1, 4, 3)]), task(2, "b.png"), cancelled, predicted, task(5, "e.png", [])
    )
    report = import_source(source, data)
    assert sorted(items(data)) == ["a", "e"]
    assert not mask_of(items(data)["e"]).any()  # its annotator saw nothing there
    assert "tasks without an annotation (predictions are not read): 3" in report.notes
    assert "submitted without a region, all background: 1" in " ".join(report.notes)


def test_one_of_several_annotations_counts(source: Path, data: Path) -> None:
    for name in "ab":
        photo(source / f"{name}.png")
    first = task(1, "a.png", [polygon(1, 1, 4, 3)], [polygon(5, 5, 2, 2)])
    second = task(2, "b.png", [polygon(1, 1, 4, 3)], [polygon(5, 5, 2, 2)])
    second["annotations"][0]["ground_truth"] = True
    write_export(source, first, second)
    report = import_source(source, data)
    assert {key: int(mask_of(item).sum()) for key, item in items(data).items()} == {"a": 4, "b": 12}
    assert any(note.startswith("tasks with several annotations") and note.endswith(": 2") for note in report.notes)


BROKEN_REGIONS = {
    "a turned image": (polygon(1, 1, 4, 3) | {"image_rotation": 90}, "was drawn on a turned image"),
    "no size": (polygon(1, 1, 4, 3) | {"original_width": None}, "has no image size"),
    "two labels": (region({"x": 1, "y": 1, "width": 9, "height": 9, "labels": ["x"]}), "no single label"),
    "no label": (region({"x": 1, "y": 1, "width": 9, "height": 9, "rotation": 0}, None), "without a label"),
    "text": (region({"points": [["a", 1], [2, 3], [4, 5]]}), "not a flat list"),
    "pixels": (region({"x": 1, "y": 1, "width": 9000, "height": 9}), "not percent"),
    "a key point of the class": (
        region({"x": 1, "y": 1, "width": 0.2}, kind="keypointlabels"),
        "key points of the class cell",
    ),
    "an unknown kind": (region({"x": 1, "y": 1, "depth": 4}, kind="cuboidlabels"), "a kind that is not read"),
    "a bitmap": (region({"imageDataURL": "data:image/png;base64,AA"}, kind="bitmasklabels"), "a kind that is not read"),
    "another size": (polygon(1, 1, 4, 3) | {"original_width": 99}, "shows several images"),
    "another image": (polygon(1, 1, 4, 3) | {"to_name": "image2"}, "shows several images"),
    "a brush": (region({"rle": [1, 2]}, kind="brushlabels"), "cut short"),
}


@pytest.mark.parametrize("fault", BROKEN_REGIONS)
def test_an_image_with_a_broken_region_is_not_used(source: Path, data: Path, fault: str) -> None:
    broken, reason = BROKEN_REGIONS[fault]
    for name in "ab":
        photo(source / f"{name}.png")
    write_export(source, task(1, "a.png", [polygon(1, 1, 4, 3), broken]), task(2, "b.png", [polygon(1, 1, 4, 3)]))
    report = import_source(source, data)
    assert list(items(data)) == ["b"]
    assert any(reason in message for _, message in report.skipped)


def test_entries_of_one_region_count_once(source: Path, data: Path) -> None:
    """The tag Labels repeats the region of the tag Rectangle; answers about a region or the image mark no pixels."""
    photo(source / "a.png")
    plain = rectangle(8, 2, 5, 4, id="r1")
    del plain["value"]["rectanglelabels"]
    labelled = plain | {"type": "labels", "value": plain["value"] | {"labels": ["cell"]}}
    choice = plain | {"type": "choices", "value": plain["value"] | {"choices": ["blurred"]}}
    answer = {"type": "choices", "value": {"choices": ["good"]}, "from_name": "quality", "to_name": "image"}
    write_export(source, task(1, "a.png", [plain, labelled, choice, answer, {"type": "relation", "from_id": "r1"}]))
    report = import_source(source, data)
    assert (report.classes.names, report.skipped) == (["background", "cell"], [])
    assert (mask_of(items(data)["a"]) > 0).sum() == 20
    assert "answers that mark no region: 2" in report.notes


def test_two_exports_and_the_advice(source: Path, data: Path) -> None:
    photo(source / "a.png")
    write_export(source, task(1, "a.png", [polygon(1, 1, 4, 3)]), name="old.json")
    write_export(source, task(1, "a.png", [polygon(5, 5, 2, 2)]), name="young.json")
    with pytest.raises(DataError, match=r"two exports hold the same image.*--masks young\.json"):
        import_source(source, data)
    import_source(source, data, read={"masks": "young.json"})
    assert (mask_of(items(data)["a"]) > 0).sum() == 4


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ([task(1, "gone.png", [polygon(1, 1, 4, 3)])], "no region can be used.*names a missing image"),
        ([task(1, "../../outside.png", [polygon(1, 1, 4, 3)])], "names a missing image"),
        ([task(1, "a.png", [])], "no region can be used.*1 tasks without regions"),
        ([{"id": 1, "annotations": 5, "result": 1, "data": {"image": "a.png"}}], "no region can be used"),
        ([{"id": 1, "annotations": [{"result": "x"}, 7], "data": {"image": "a.png\0"}}, 5], "no region can be used"),
    ],
)
def test_nothing_usable_is_an_error(source: Path, data: Path, tmp_path: Path, tasks: list[Any], words: str) -> None:
    photo(source / "a.png")
    photo(tmp_path / "outside.png")
    write_export(source, *tasks)
    with pytest.raises(DataError, match=words):
        import_source(source, data, "label-studio")
    assert not data.exists()


def test_two_kinds_of_exports_in_one_folder_are_asked_about(source: Path, data: Path) -> None:
    photo(source / "images" / "a1b2c3d4-a.png")
    write_export(source, task(1, "/data/upload/1/a1b2c3d4-a.png", [polygon(1, 1, 4, 3)]))
    (source / "result.json").write_text(json.dumps(document("images\\a1b2c3d4-a.png")))
    with pytest.raises(UnclearSource, match=r"--format coco.*--format label-studio"):
        import_source(source, data)
    import_source(source, data, "label-studio")
    assert (mask_of(items(data)["a1b2c3d4-a"]) > 0).sum() == 12

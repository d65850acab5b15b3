"""Polygons and run-length codes against independent rasterisers and encoders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageDraw
from skimage.draw import polygon as skimage_polygon

from segpipe.data.formats.annotations.categories import Category, number_classes
from segpipe.data.formats.annotations.painter import HIDDEN, OVERLAP, Annotation, Painter
from segpipe.data.formats.annotations.shapes import Polygons, Runs, encode_coco_runs, parse_polygon, parse_runs, rasterise, reaches_out, runs_by_value
from segpipe.errors import DataError

EDGES = st.integers(1, 23)


def plane(counts: np.ndarray, height: int, width: int) -> np.ndarray:
    """Runs as a plane of booleans, one run at a time."""
    flat, at = np.zeros(height * width, bool), 0
    for number, count in enumerate(counts.tolist()):
        flat[at : at + count] = number % 2 == 1
        at += count
    assert at == height * width
    return flat.reshape(width, height).T


def runs_by_hand(mask: np.ndarray) -> list[int]:
    """Run lengths down the columns, pixel by pixel, as COCO's documentation describes them."""
    counts, value = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def string_by_hand(counts: list[int]) -> str:
    """COCO's compression: from the fourth count on the difference to the one before the last, in groups of five bits."""
    text = ""
    for place, count in enumerate(counts):
        number = count - counts[place - 2] if place > 2 else count
        while True:
            bits, number = number & 31, number >> 5
            more = number != (-1 if bits & 16 else 0)
            text += chr(48 + (bits | 32 if more else bits))
            if not more:
                break
    return text


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_run_length_codes_are_exact(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(EDGES, EDGES))
    mask = data.draw(arrays.arrays(bool, shape))
    counts = runs_by_hand(mask)
    for code in (counts, string_by_hand(counts)):
        runs = parse_runs(list(shape), code)
        assert np.array_equal(plane(rasterise(runs, *shape), *shape), mask)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_each_value_of_a_plane_in_one_pass(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(EDGES, EDGES))
    keys = data.draw(arrays.arrays(np.int32, shape, elements=st.sampled_from([0, 1, 255, 1 << 20])))
    runs = runs_by_value(keys)
    assert set(runs) == set(np.unique(keys).tolist())
    for key, counts in runs.items():
        assert np.array_equal(plane(counts, *shape), keys == key)
        written = encode_coco_runs(counts, *shape)
        assert written["segmentation"]["counts"] == string_by_hand(runs_by_hand(keys == key))
        assert written["area"] == (keys == key).sum()
        rows, columns = np.nonzero(keys == key)
        x, y = columns.min(), rows.min()
        assert written["bbox"] == [x, y, columns.max() + 1 - x, rows.max() + 1 - y]


@pytest.mark.parametrize("seed", range(12))
def test_polygons_against_two_other_rasterisers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(30, 90, 2).tolist()
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    radius = rng.uniform(0.3, 0.7, 9) * min(height, width)  # may reach over the edges
    x, y = width / 2 + radius * np.cos(angles), height / 2 + radius * np.sin(angles)
    drawn = plane(rasterise(Polygons((np.stack([x, y], 1),)), height, width), height, width)
    rows, columns = skimage_polygon(y - 0.5, x - 0.5, (height, width))  # there, a pixel's centre has whole coordinates
    by_skimage = np.zeros((height, width), bool)
    by_skimage[rows, columns] = True
    canvas = Image.new("1", (width, height))
    ImageDraw.Draw(canvas).polygon([(a - 0.5, b - 0.5) for a, b in zip(x, y, strict=True)], fill=1)
    distance = distance_to_outline(np.stack([x, y], 1), height, width)
    # COCO rounds corners to a fifth of a pixel; PIL fills the outline too, so that it is one pixel off at most.
    for other, off in ((by_skimage, 0.2), (np.asarray(canvas), 2**0.5)):
        assert other.any()
        assert distance[drawn != other].max(initial=0) < off


def distance_to_outline(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """How far each pixel's centre is from the nearest edge of a polygon."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    centres = np.stack([columns, rows], axis=-1)[:, :, None]
    edges = np.roll(points, -1, axis=0) - points
    along = ((centres - points) * edges).sum(-1) / (edges**2).sum(-1)
    nearest = points + np.clip(along, 0, 1)[..., None] * edges
    return np.linalg.norm(centres - nearest, axis=-1).min(axis=-1)


def test_a_rectangle_to_the_pixel() -> None:
    drawn = plane(rasterise(Polygons((parse_polygon([2, 1, 6, 1, 6, 4, 2, 4]),)), 5, 8), 5, 8)
    expected = np.zeros((5, 8), bool)
    expected[1:4, 2:6] = True
    assert np.array_equal(drawn, expected)


def test_parts_are_united() -> None:
    parts = tuple(parse_polygon(p) for p in ([0, 0, 2, 0, 2, 2, 0, 2], [1, 1, 5, 1, 5, 4, 1, 4]))
    drawn = plane(rasterise(Polygons(parts), 5, 6), 5, 6)
    assert drawn.sum() == 4 + 12 - 1


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ([1, 1, 2, 2], "fewer than 3 points"),
        ([], "fewer than 3 points"),
        ([1, 1, 2, 2, 3], "odd count"),
        ([1, 1, 2, 2, 3, float("nan")], "NaN"),
        ([1, 1, 2, 2, 3, float("inf")], "infinity"),
        ([1, 1, 2, 2, 3, None], "no flat list"),
        ([1, 1, 2, 2, 3, "4"], "no flat list"),
        ([[1, 1], [2, 2], [3, 3]], "no flat list"),
        ([[1], 2], "no flat list"),
        ([10**400, 1, 2, 2, 3, 3], "no flat list"),
        ({"x": 1}, "no flat list"),
    ],
)
def test_broken_polygons(numbers: object, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        parse_polygon(numbers)


@pytest.mark.parametrize(
    ("size", "code", "reason"),
    [
        ([3, 4], [6, 3], "does not fill"),
        ([3, 4], [6, 30], "no list of counts"),
        ([3, 4], [6, -1, 7], "no list of counts"),
        ([3, 4], [6.0, 6.0], "no list of counts"),
        ([3, 4], None, "no string"),
        ([3], [3], "no size"),
        ([0, 4], [], "no size"),
        ([3, True], [3], "no size"),
        ("3,4", [12], "no size"),
        ([3, 4], "", "does not fill"),
        ([3, 4], "ooooo", "broken"),
        ([3, 4], "é≈", "broken|does not fill"),
        ([3, 4], "P1", "broken|does not fill"),
    ],
)
def test_broken_run_length_codes(size: object, code: object, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        parse_runs(size, code)


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        ([-9, -9, -1, -9, -1, -1], "outside its image"),
        ([1e9, 1e9, 2e9, 1e9, 1e9, 2e9], "outside its image"),
        ([0, 0, 1e9, 0, 1e9, 1e9], "much too far"),
        ([-1e308, 0, 1e308, 1, 0, 1e308], "much too far"),
    ],
)
def test_polygons_that_cannot_be_drawn(points: list[float], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        reaches_out(Polygons((parse_polygon(points),)), 10, 10)


def test_polygons_over_the_edge_are_clipped() -> None:
    shape = Polygons((parse_polygon([-5, -5, 3, -5, 3, 4, -5, 4]),))
    assert reaches_out(shape, 6, 7)
    drawn = plane(rasterise(shape, 6, 7), 6, 7)
    assert drawn[:4, :3].all()
    assert drawn.sum() == 12
    assert not reaches_out(Polygons((parse_polygon([0, 0, 7, 0, 7, 6]),)), 6, 7)


def painter(*objects: Annotation, size: tuple[int, int] | None = (6, 7), instances: bool = True) -> Painter:
    categories = [Category(3, "cell"), Category(8, "nucleus")]
    return Painter(objects, number_classes(categories, True, Path("x.json")), size, instances, "a.png")


def square(x: float, y: float, edge: float, category: int = 3, **more: bool) -> Annotation:
    points = np.array([(x, y), (x + edge, y), (x + edge, y + edge), (x, y + edge)], np.float64)
    return Annotation(Polygons((points,)), category, **more)


def test_the_smaller_object_lies_on_top_and_pixels_are_counted() -> None:
    for order in (1, -1):
        drawing = painter(*[square(1, 1, 4), square(2, 2, 2, 8)][::order])(6, 7)
        assert (drawing.mask == 8).sum() == 4
        assert (drawing.mask == 3).sum() == 12
        assert drawing.notes == {OVERLAP: 4}
        assert drawing.instances is not None
        assert len(np.unique(drawing.instances)) == 3


def test_an_object_behind_another() -> None:
    drawing = painter(square(1, 1, 3), square(1, 1, 3, 8))(6, 7)
    assert drawing.notes == {OVERLAP: 9, HIDDEN: 1}


def test_objects_lie_on_ignored_regions() -> None:
    drawing = painter(square(1, 1, 2), square(0, 0, 5, 8, ignored=True))(6, 7)
    assert (drawing.mask == 255).sum() == 25 - 4
    assert (drawing.mask == 3).sum() == 4
    assert not drawing.notes
    assert drawing.instances is not None
    assert drawing.instances.max() == 1


def test_stuff_has_no_number() -> None:
    drawing = painter(square(1, 1, 2), square(3, 3, 2, 8, thing=False))(6, 7)
    assert drawing.instances is not None
    assert (drawing.instances > 0).sum() == 4
    assert painter(square(1, 1, 2), instances=False)(6, 7).instances is None


def test_an_image_of_another_size() -> None:
    with pytest.raises(DataError, match=r"a\.png.*found 8 x 6, expected 7 x 6"):
        painter(square(1, 1, 2))(6, 8)
    with pytest.raises(DataError, match=r"a\.png.*another size"):
        painter(Annotation(Runs(2, 3, np.array([6])), 3), size=None)(6, 7)


@pytest.mark.parametrize(
    ("ids", "values", "ignore"),
    [([1, 2], [1, 2], 255), ([0, 1], [1, 2], 255), ([7, 255], [7, 255], 65535), ([1, 90000], [1, 2], 255), ([-1, 4], [1, 2], 255)],
)
def test_category_ids_and_pixel_values(ids: list[int], values: list[int], ignore: int) -> None:
    numbering = number_classes([Category(n, f"c{n}", (n % 9, 1, 2)) for n in ids], True, Path("x.json"))
    assert [spec.value for spec in numbering.classes.classes] == [0, *values]
    assert numbering.classes.names == ["background", *(f"c{n}" for n in ids)]
    assert numbering.classes.classes[1].color == (ids[0] % 9, 1, 2)
    assert numbering.values == dict(zip(ids, values, strict=True))
    assert numbering.classes.ignore == (numbering.ignore,) == (ignore,)


def test_categories_of_one_name_and_of_none() -> None:
    where = Path("x.json")
    both = number_classes([Category(0, "cell"), Category(1, "cell"), Category(2, "Background")], False, where)
    assert both.classes.names == ["Background", "cell"]
    assert both.values == {2: 0, 0: 1, 1: 1}
    assert any("one name" in note for note in both.notes)
    for wrong in ([], [Category(2, "background")], [Category(n, f"c{n}") for n in range(1, 300)]):
        with pytest.raises(DataError, match="too few or too many"):
            number_classes(wrong, False, where)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_painting_against_brute_force(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(EDGES, st.integers(1, 40)))
    seed, count = data.draw(st.integers(0, 999)), data.draw(st.integers(0, 5))
    rng = np.random.default_rng(seed)
    planes = [rng.random(shape) < rng.choice([0.01, 0.3, 0.9]) for _ in range(count)]
    marked = [
        Annotation(parse_runs(list(shape), runs_by_hand(p)), int(rng.choice([3, 8])), bool(rng.random() < 0.2))
        for p in planes
    ]
    drawing = painter(*marked, size=shape)(*shape)
    mask, instances = np.zeros(shape, int), np.zeros(shape, int)
    pairs = list(zip(planes, marked, strict=True))
    for plane_, _ in (pair for pair in pairs if pair[1].ignored):
        mask[plane_] = 255
    things = [pair for pair in pairs if not pair[1].ignored]
    for number, (plane_, m) in sorted(enumerate(things, start=1), key=lambda entry: -int(entry[1][0].sum())):
        mask[plane_], instances[plane_] = m.category, number
    assert np.array_equal(drawing.mask, mask)
    assert np.array_equal(drawing.instances, instances)
    assert drawing.notes[OVERLAP] == (np.sum([p for p, _ in things], axis=0) > 1).sum() if things else True

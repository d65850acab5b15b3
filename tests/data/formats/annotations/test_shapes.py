"""Polygons and run-length codes, compared with independent rasterisers and encoders."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageDraw
from skimage.draw import polygon as skimage_polygon

from segpipe.data.formats.annotations.shapes import (
    Composite,
    Polygons,
    encode_coco_runs,
    parse_polygon,
    parse_runs,
    rasterise,
    reaches_out,
    runs_by_value,
    runs_of_region,
)
from segpipe.errors import DataError
from tests.worlds.property_tests import examples

EDGES = st.integers(1, 23)


def plane(counts: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return run lengths as a plane (height, width) of booleans, filled run by run."""
    flat, start = np.zeros(height * width, bool), 0
    for number, count in enumerate(counts.tolist()):
        flat[start : start + count] = number % 2 == 1
        start += count
    assert start == height * width
    return flat.reshape(width, height).T


def reference_runs(mask: np.ndarray) -> list[int]:
    """Return run lengths, column by column, counted pixel by pixel as COCO's documentation describes them."""
    counts, value = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def reference_string(counts: list[int]) -> str:
    """Return COCO's compressed string: from the fourth count on, differences to the count two places before, in groups of five bits."""
    text = ""
    for index, count in enumerate(counts):
        number = count - counts[index - 2] if index > 2 else count
        while True:
            bits, number = number & 31, number >> 5
            more = number != (-1 if bits & 16 else 0)
            text += chr(48 + (bits | 32 if more else bits))
            if not more:
                break
    return text


@examples(60)
@given(st.data())
def test_run_length_codes_are_exact(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(EDGES, EDGES))
    mask = data.draw(arrays.arrays(bool, shape))
    counts = reference_runs(mask)
    for code in (counts, reference_string(counts)):
        runs = parse_runs(list(shape), code)
        assert np.array_equal(plane(rasterise(runs, *shape), *shape), mask)


@examples(60)
@given(st.data())
def test_runs_of_each_value_of_a_plane(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(EDGES, EDGES))
    values = data.draw(arrays.arrays(np.int32, shape, elements=st.sampled_from([0, 1, 255, 1 << 20])))
    runs = runs_by_value(values)
    assert set(runs) == set(np.unique(values).tolist())
    for value, counts in runs.items():
        assert np.array_equal(plane(counts, *shape), values == value)
        written = encode_coco_runs(counts, *shape)
        assert written["segmentation"]["counts"] == reference_string(reference_runs(values == value))
        assert written["area"] == (values == value).sum()
        rows, columns = np.nonzero(values == value)
        x, y = columns.min(), rows.min()
        assert written["bbox"] == [x, y, columns.max() + 1 - x, rows.max() + 1 - y]


@pytest.mark.parametrize("seed", range(12))
def test_polygons_match_two_other_rasterisers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(30, 90, 2).tolist()
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    radius = rng.uniform(0.3, 0.7, 9) * min(height, width)  # may reach over the edges
    x, y = width / 2 + radius * np.cos(angles), height / 2 + radius * np.sin(angles)
    drawn = plane(rasterise(Polygons((np.stack([x, y], 1),)), height, width), height, width)
    rows, columns = skimage_polygon(
        y - 0.5, x - 0.5, (height, width)
    )  # skimage gives the centres of pixels whole coordinates
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
    """Return the distance of each pixel's centre to the nearest edge of a polygon."""
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


def test_a_shape_is_the_union_of_its_parts() -> None:
    parts = tuple(parse_polygon(p) for p in ([0, 0, 2, 0, 2, 2, 0, 2], [1, 1, 5, 1, 5, 4, 1, 4]))
    drawn = plane(rasterise(Polygons(parts), 5, 6), 5, 6)
    assert drawn.sum() == 4 + 12 - 1


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ([1, 1, 2, 2], "fewer than 3 points"),
        ([], "fewer than 3 points"),
        ([1, 1, 2, 2, 3], "odd number of coordinates"),
        ([1, 1, 2, 2, 3, float("nan")], "NaN"),
        ([1, 1, 2, 2, 3, float("inf")], "infinite"),
        ([1, 1, 2, 2, 3, None], "not a flat list"),
        ([1, 1, 2, 2, 3, "4"], "not a flat list"),
        ([[1, 1], [2, 2], [3, 3]], "not a flat list"),
        ([[1], 2], "not a flat list"),
        ([10**400, 1, 2, 2, 3, 3], "not a flat list"),
        ({"x": 1}, "not a flat list"),
    ],
)
def test_broken_polygons(numbers: object, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        parse_polygon(numbers)


@pytest.mark.parametrize(
    ("size", "code", "reason"),
    [
        ([3, 4], [6, 3], "does not fill"),
        ([3, 4], [6, 30], "nor a list of counts"),
        ([3, 4], [6, -1, 7], "nor a list of counts"),
        ([3, 4], [6.0, 6.0], "nor a list of counts"),
        ([3, 4], None, "neither a string"),
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
        ([0, 0, 1e9, 0, 1e9, 1e9], "much too large"),
        ([-1e308, 0, 1e308, 1, 0, 1e308], "much too large"),
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


@pytest.mark.parametrize("seed", range(20))
def test_composites_match_flags_of_pixels(seed: int) -> None:
    generator = np.random.default_rng(seed)
    height, width = generator.integers(1, 9, 2).tolist()
    planes = [generator.random((height, width)) < share for share in generator.random(4)]
    shapes = [runs_of_region(plane, 0, 0, height, width) for plane in planes]
    composite = Composite((Composite((shapes[0],), (shapes[1],)), shapes[2]), (shapes[3],))
    expected = ((planes[0] & ~planes[1]) | planes[2]) & ~planes[3]
    runs = rasterise(composite, height, width)
    np.testing.assert_array_equal(plane(runs, height, width), expected)
    assert (runs[1:] > 0).all()  # no empty runs but possibly the first one


@pytest.mark.parametrize("seed", range(20))
def test_bitmaps_are_placed_and_cut_off(seed: int) -> None:
    generator = np.random.default_rng(seed)
    height, width = generator.integers(1, 9, 2).tolist()
    bitmap = generator.random(generator.integers(1, 9, 2)) < 0.6
    top, left = generator.integers(-4, 9, 2).tolist()
    expected = np.zeros((height, width), bool)
    for (row, column), flag in np.ndenumerate(bitmap):
        if 0 <= row + top < height and 0 <= column + left < width:
            expected[row + top, column + left] = flag
    runs = rasterise(runs_of_region(bitmap, top, left, height, width), height, width)
    np.testing.assert_array_equal(plane(runs, height, width), expected)

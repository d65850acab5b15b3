"""Annotations drawn as labels: order, ignored regions, overlaps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segpipe.data.formats.annotations.categories import Category, number_classes
from segpipe.data.formats.annotations.painter import COVERED, HIDDEN, LAYERED, OVERLAP, Annotation, Painter
from segpipe.data.formats.annotations.shapes import Polygons, Runs, parse_runs
from segpipe.errors import DataError
from tests.data.formats.annotations.test_shapes import reference_runs
from tests.worlds.property_tests import examples

EDGES = st.integers(1, 23)


def painter(*annotations: Annotation, size: tuple[int, int] | None = (6, 7), instances: bool = True) -> Painter:
    categories = [Category(3, "cell"), Category(8, "nucleus")]
    return Painter(annotations, number_classes(categories, True, Path("x.json")), size, instances, "a.png")


def square(x: float, y: float, edge: float, category: int = 3, **more: Any) -> Annotation:
    points = np.array([(x, y), (x + edge, y), (x + edge, y + edge), (x, y + edge)], np.float64)
    return Annotation(Polygons((points,)), category, **more)


def test_the_smaller_instance_lies_on_top_and_overlapping_pixels_are_counted() -> None:
    for order in (1, -1):
        drawing = painter(*[square(1, 1, 4), square(2, 2, 2, 8)][::order])(6, 7)
        assert (drawing.mask == 8).sum() == 4
        assert (drawing.mask == 3).sum() == 12
        assert drawing.notes == {OVERLAP: 4}
        assert drawing.instances is not None
        assert len(np.unique(drawing.instances)) == 3


def test_an_instance_that_is_completely_covered() -> None:
    drawing = painter(square(1, 1, 3), square(1, 1, 3, 8))(6, 7)
    assert drawing.notes == {OVERLAP: 9, HIDDEN: 1}


def test_a_higher_layer_covers_smaller_instances() -> None:
    drawing = painter(square(1, 1, 4, layer=1), square(2, 2, 2, 8), square(3, 3, 3, 8, layer=1))(6, 7)
    assert (drawing.mask == 3).sum() == 16 - 4
    assert (drawing.mask == 8).sum() == 9
    assert drawing.notes == {LAYERED: 4 + 4 - 1, COVERED: 1}


def test_an_instance_on_an_ignored_region_is_not_an_overlap() -> None:
    drawing = painter(square(1, 1, 2), square(0, 0, 5, 8, ignored=True))(6, 7)
    assert (drawing.mask == 255).sum() == 25 - 4
    assert (drawing.mask == 3).sum() == 4
    assert not drawing.notes
    assert drawing.instances is not None
    assert drawing.instances.max() == 1


def test_regions_that_are_not_instances_have_no_id() -> None:
    drawing = painter(square(1, 1, 2), square(3, 3, 2, 8, is_instance=False))(6, 7)
    assert drawing.instances is not None
    assert (drawing.instances > 0).sum() == 4
    assert painter(square(1, 1, 2), instances=False)(6, 7).instances is None


def test_an_image_of_another_size() -> None:
    with pytest.raises(DataError, match=r"a\.png.*found 8 x 6, expected 7 x 6"):
        painter(square(1, 1, 2))(6, 8)
    with pytest.raises(DataError, match=r"a\.png.*different size"):
        painter(Annotation(Runs(2, 3, np.array([6])), 3), size=None)(6, 7)


@examples(60)
@given(st.data())
def test_painting_matches_brute_force(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(EDGES, st.integers(1, 40)))
    seed, count = data.draw(st.integers(0, 999)), data.draw(st.integers(0, 5))
    rng = np.random.default_rng(seed)
    planes = [rng.random(shape) < rng.choice([0.01, 0.3, 0.9]) for _ in range(count)]
    annotations = [
        Annotation(parse_runs(list(shape), reference_runs(p)), int(rng.choice([3, 8])), bool(rng.random() < 0.2))
        for p in planes
    ]
    drawing = painter(*annotations, size=shape)(*shape)
    mask, instances = np.zeros(shape, int), np.zeros(shape, int)
    pairs = list(zip(planes, annotations, strict=True))
    for plane_, _ in (pair for pair in pairs if pair[1].ignored):
        mask[plane_] = 255
    instance_pairs = [pair for pair in pairs if not pair[1].ignored]
    for number, (plane_, m) in sorted(enumerate(instance_pairs, start=1), key=lambda entry: -int(entry[1][0].sum())):
        mask[plane_], instances[plane_] = m.category_id, number
    assert np.array_equal(drawing.mask, mask)
    assert np.array_equal(drawing.instances, instances)
    assert (
        drawing.notes[OVERLAP] == (np.sum([p for p, _ in instance_pairs], axis=0) > 1).sum() if instance_pairs else True
    )

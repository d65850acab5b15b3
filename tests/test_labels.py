"""Sets of classes as labels: packing, lookup and colours; class tables of overlapping classes and the values in mask files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segpipe.labels import Labelling, OverlappingLabelling
from segpipe.samples import IGNORE, UNKNOWN, ClassSpec, ClassTable
from tests.worlds.property_tests import examples

SHAPES = st.tuples(st.integers(2, 8), st.integers(1, 6), st.integers(1, 6))
"""(n_classes, height, width)."""


def table(*values: int, ignore: tuple[int, ...] = ()) -> ClassTable:
    specs = tuple(ClassSpec(name=f"c{v}", value=v, color=(v % 256, 0, 0)) for v in (0, *values))
    return ClassTable(classes=specs, ignore=ignore, overlapping=True)


@examples(80)
@given(SHAPES.flatmap(lambda s: hnp.arrays(np.bool_, s)))
def test_packed_classes_are_found_again(present: np.ndarray) -> None:
    present[0] = ~present[1:].any(0)
    sets = OverlappingLabelling(len(present))
    labels = sets.pack(present)
    assert labels.max() < sets.n_labels <= UNKNOWN
    for index, mask in enumerate(present):
        np.testing.assert_array_equal(sets.where(labels, index), mask)
    np.testing.assert_array_equal(np.moveaxis(sets.members[labels], -1, 0), present)
    np.testing.assert_array_equal(sets.count_pixels(labels), present.sum((1, 2)))


@pytest.mark.parametrize("labelling", [Labelling(3), OverlappingLabelling(3), OverlappingLabelling(8)])
def test_ignored_and_unknown_labels_have_no_class(labelling: Labelling) -> None:
    reserved = np.array([[IGNORE, UNKNOWN]], np.uint8)
    assert not any(labelling.where(reserved, index).any() for index in range(labelling.n_classes))
    assert not labelling.members[[IGNORE, UNKNOWN]].any() and not labelling.count_pixels(reserved).any()


def test_the_label_of_an_exclusive_class_is_its_id() -> None:
    labels = np.array([[0, 1, 2, 2, IGNORE]], np.uint8)
    assert Labelling(3).count_pixels(labels).tolist() == [1, 1, 2]
    assert Labelling(3).where(labels, 2).tolist() == [[False, False, True, True, False]]


@examples(60)
@given(st.permutations([1, 2, 4, 8, 16, 512, 16384]), hnp.arrays(np.uint8, (4, 5), elements=st.integers(0, 127)))
def test_mask_files_hold_the_sum_of_class_values(values: list[int], labels: np.ndarray) -> None:
    classes = table(*values, ignore=(65535,))
    stored = classes.decode(labels)
    assert stored.dtype == np.uint16
    for label, value in zip(labels.ravel().tolist(), stored.ravel().tolist(), strict=True):
        assert value == sum(v for k, v in enumerate(values) if label >> k & 1)
    np.testing.assert_array_equal(classes.encode(stored), labels)


def test_other_bits_are_unknown_and_ignored_values_ignored() -> None:
    classes = table(1, 2, ignore=(255, 65535))
    labels = classes.encode(np.array([0, 3, 4, 7, 255, 65535], np.uint16))
    assert labels.tolist() == [0, 3, UNKNOWN, UNKNOWN, IGNORE, IGNORE]


def test_a_set_is_drawn_in_the_mean_colour() -> None:
    classes = table(100 & 64, 128)
    assert classes.palette.tolist() == [[0, 0, 0], [64, 0, 0], [128, 0, 0], [96, 0, 0]]


@pytest.mark.parametrize(
    ("values", "ignore", "message"),
    [((1, 3), (), "bits"), ((1, 2), (3,), "sums of class values"), (tuple(1 << k for k in range(8)), (), "at most 7")],
)
def test_invalid_tables_are_refused(values: tuple[int, ...], ignore: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table(*values, ignore=ignore)


def test_tables_of_exclusive_classes_do_not_mention_overlap() -> None:
    plain = ClassTable.from_names(["background", "cell"])
    assert "overlapping" not in plain.model_dump_json()
    assert ClassTable.model_validate_json(table(1, 2).model_dump_json()).overlapping

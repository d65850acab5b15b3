"""Class tables: conversion between file values and labels, and refused tables."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from segpipe.samples import IGNORE, UNKNOWN, ClassTable, default_color


@given(st.lists(st.integers(0, 65535), min_size=3, max_size=40, unique=True), st.integers(1, 2), st.randoms())
def test_decode_undoes_encode(values, n_ignored, random):
    ignored, classes = tuple(values[:n_ignored]), values[n_ignored:]
    assume(len(classes) >= 2)
    table = ClassTable.from_names([f"c{v}" for v in classes], classes, ignored)
    mask = np.array([[random.choice(classes) for _ in range(5)] for _ in range(4)], np.uint16)
    labels = table.encode(mask)
    assert labels.dtype == np.uint8
    assert [classes[k] for k in labels.ravel()] == mask.ravel().tolist()
    assert (table.decode(labels) == mask).all()


def test_ignored_and_unknown_values_have_labels_of_their_own():
    table = ClassTable.from_names(["a", "b"], [0, 128], ignore=(11,))
    assert table.encode(np.array([[0, 128, 11, 7]])).tolist() == [[0, 1, IGNORE, UNKNOWN]]
    assert table.decode(np.array([[IGNORE]])).tolist() == [[11]]


@pytest.mark.parametrize(
    "arguments",
    [
        {"names": ["a", "a"]},
        {"names": ["a", "b"], "values": [3, 3]},
        {"names": ["a", "b"], "ignore": (1,)},
        {"names": ["a"]},
    ],
)
def test_a_table_that_contradicts_itself_is_refused(arguments):
    with pytest.raises(ValidationError):
        ClassTable.from_names(**arguments)


def test_default_colours_differ():
    assert len({default_color(i) for i in range(60)}) == 60
    assert all(0 <= c <= 255 for i in range(250) for c in default_color(i))

"""Quantities of one image against the manifest's columns and plain numpy; what an import of the room loads."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segpipe.data.images.statistics import flat_rows, moments
from segpipe.drift import image_statistics
from segpipe.drift.image_statistics import channel_moments, image_quantities, quantity_columns

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4))
IMAGES = st.one_of(
    arrays(np.uint8, SHAPES),
    arrays(np.uint16, SHAPES),
    arrays(np.float32, SHAPES, elements=st.floats(-1000, 1000, width=32)),
)


@given(image=IMAGES)
def test_moments_are_those_of_the_manifest_to_the_last_bit(image: np.ndarray) -> None:
    mean, deviation = channel_moments(image)
    expected = moments(image)
    assert mean.tolist() == expected[0].tolist() and deviation.tolist() == expected[1].tolist()
    volume = np.stack([image, image[::-1]])
    mean, deviation = channel_moments(volume)
    expected = moments(flat_rows(volume))
    assert mean.tolist() == expected[0].tolist() and deviation.tolist() == expected[1].tolist()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_images_of_several_bands(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).uniform(0, 250, (53, 31, 2)).astype(dtype)
    monkeypatch.setattr(image_statistics, "_BAND_PIXELS", 100)
    mean, deviation = channel_moments(image)
    values = image.astype(np.float64)
    np.testing.assert_allclose(mean, values.mean((0, 1)), rtol=1e-9)
    np.testing.assert_allclose(deviation, values.std((0, 1)), rtol=1e-7)


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(ValueError, match="found float64"):
        channel_moments(np.zeros((2, 2, 1)))


def test_quantities_of_an_image() -> None:
    image = np.array([[[0, 10], [4, 10]]], np.uint8)
    assert image_quantities(image, [1, 0, 3], ["a", "b", "c"]) == {
        "mean of channel 1": 2,
        "mean of channel 2": 10,
        "deviation of channel 1": 2,
        "deviation of channel 2": 0,
        "share of a": 0.25,
        "share of b": 0,
        "share of c": 0.75,
    }


def test_columns_of_many_images_and_no_labelled_pixel() -> None:
    columns = quantity_columns([[1.0], [2.0]], [[0.5], [0.25]], [[0, 0], [1, 3]], ["a", "b"])
    assert {name: column.tolist() for name, column in columns.items()} == {
        "mean of channel 1": [1, 2],
        "deviation of channel 1": [0.5, 0.25],
        "share of a": [0, 0.25],
        "share of b": [0, 0.75],
    }


def test_importing_the_room_loads_no_heavy_library() -> None:
    """The endpoint imports it."""
    code = (
        "import importlib, pkgutil, sys; import segpipe.drift as room\n"
        "names = [module.name for module in pkgutil.iter_modules(room.__path__)]\n"
        "for name in names: importlib.import_module(f'segpipe.drift.{name}')\n"
        "print(sorted({'pandas', 'scipy', 'cv2', 'torch', 'pyarrow'} & set(sys.modules)), 'comparison' in names)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[] True"

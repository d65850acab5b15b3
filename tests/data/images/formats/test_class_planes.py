"""Label volumes with one volume of 0 and 1 per class."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from segpipe.config import DataParams
from segpipe.data.images import decode_mask, decode_mask_with_notes
from segpipe.errors import DataError

LIMITS = DataParams()


def labels() -> np.ndarray:
    """Return class values (x, y, z), most of them 0."""
    array = np.zeros((6, 5, 4), np.uint8)
    array[1:3, 1:4, 1:3], array[4, 2, 2] = 1, 2
    return array


def one_hot(array: np.ndarray) -> np.ndarray:
    return np.stack([array == c for c in range(3)], axis=-1).astype(np.uint8)


def encoded(array: np.ndarray) -> bytes:
    return nibabel.Nifti1Image(array, np.eye(4)).to_bytes()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_one_hot_volumes_are_class_values(dtype: type) -> None:
    mask, notes = decode_mask_with_notes(encoded(one_hot(labels()).astype(dtype)), "m", LIMITS)
    np.testing.assert_array_equal(mask, labels().T)
    assert notes == ["3 volumes of 0 and 1 read as one class each"]


def test_the_fourth_axis_of_length_one_is_no_axis() -> None:
    np.testing.assert_array_equal(decode_mask(encoded(labels()[..., None]), "m", LIMITS), labels().T)


def test_other_fourth_axes_are_refused() -> None:
    overlapping, gaps = one_hot(labels()), one_hot(labels())
    overlapping[1, 1, 1, 2], gaps[0, 0, 0, 0] = 1, 0
    for array, words in (
        (overlapping, "3 volumes along the fourth axis, which overlap"),
        (gaps, "leave voxels without a class"),
        (one_hot(labels()) * 2, "other values than 0 and 1"),
        (one_hot(labels())[..., ::-1], "of which number 3 is the largest"),
    ):
        with pytest.raises(DataError, match=words + r".*Fix: save one volume whose values are the classes"):
            decode_mask(encoded(array), "m", LIMITS)

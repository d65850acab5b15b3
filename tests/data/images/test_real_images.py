"""Every image and mask file of the five real datasets decodes as an independent library reads it."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import skimage.io
from PIL import Image

from segpipe.config import DataParams
from segpipe.data.images import is_image_file, read_image, read_mask, suffix_of
from segpipe.errors import DataError

LIMITS = DataParams()


def some(folder: Path, most: int) -> list[Path]:
    """Image files at any depth, evenly spread over the names, and all endings among them."""
    files = sorted(path for path in folder.rglob("*") if is_image_file(path))
    return files[:: max(1, len(files) // most)]


def by_pil(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        if image.mode == "P":
            image = image.convert("RGB")
        return np.asarray(image)


@pytest.mark.parametrize("dataset", ["camvid", "em_membranes", "nuclei", "wbc"])
def test_pictures_agree_with_pil_and_skimage(dataset: str, shared_data: Path) -> None:
    files = some(shared_data / dataset, 60)
    assert len(files) >= 30
    for path in files:
        image = read_image(path, LIMITS)
        for theirs in (by_pil(path), skimage.io.imread(path)):
            theirs = theirs[:, :, None] if theirs.ndim == 2 else theirs
            theirs = theirs[:, :, :1] if theirs.shape[2] == 2 else theirs[:, :, :3]  # alpha
            assert image.dtype == theirs.dtype or theirs.dtype == bool
            np.testing.assert_array_equal(image, theirs.astype(image.dtype), err_msg=str(path))


@pytest.mark.parametrize("dataset", ["camvid", "em_membranes", "nuclei", "wbc"])
def test_masks_are_their_stored_values(dataset: str, shared_data: Path) -> None:
    read = 0
    for path in some(shared_data / dataset, 120):
        with Image.open(path) as image:
            stored = np.asarray(image)
        try:
            mask = read_mask(path, LIMITS)
        except DataError:
            assert stored.ndim == 3, "an image in colours is no mask"
            continue
        read += 1
        np.testing.assert_array_equal(mask, stored if stored.ndim == 2 else stored[:, :, 0], err_msg=str(path))
    assert read >= 15


def test_volumes_agree_with_nibabel(shared_data: Path) -> None:
    files = some(shared_data / "hippocampus", 80)
    assert all(suffix_of(path) == ".nii.gz" for path in files)
    for path in files:
        np.testing.assert_array_equal(
            read_image(path, LIMITS)[..., 0], nibabel.load(path).get_fdata(dtype=np.float32).T
        )

"""Image and mask files of five real datasets, compared with independent libraries."""

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


def sample_files(folder: Path, count: int) -> list[Path]:
    """Select about `count` image files of a folder and its subfolders, evenly spread over their names."""
    files = sorted(path for path in folder.rglob("*") if is_image_file(path))
    return files[:: max(1, len(files) // count)]


def by_pil(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        if image.mode == "P":
            image = image.convert("RGB")
        return np.asarray(image)


@pytest.mark.parametrize("dataset", ["camvid", "em_membranes", "nuclei", "wbc"])
def test_2d_images_agree_with_pil_and_skimage(dataset: str, shared_data: Path) -> None:
    files = sample_files(shared_data / dataset, 60)
    assert len(files) >= 30
    for path in files:
        image = read_image(path, LIMITS)
        for expected in (by_pil(path), skimage.io.imread(path)):
            expected = expected[:, :, None] if expected.ndim == 2 else expected
            expected = expected[:, :, :1] if expected.shape[2] == 2 else expected[:, :, :3]  # alpha
            assert image.dtype == expected.dtype or expected.dtype == bool
            np.testing.assert_array_equal(image, expected.astype(image.dtype), err_msg=str(path))


@pytest.mark.parametrize("dataset", ["camvid", "em_membranes", "nuclei", "wbc"])
def test_masks_have_the_stored_values(dataset: str, shared_data: Path) -> None:
    masks = 0
    for path in sample_files(shared_data / dataset, 120):
        with Image.open(path) as image:
            stored = np.asarray(image)
        try:
            mask = read_mask(path, LIMITS)
        except DataError:
            assert stored.ndim == 3, "only an image in colours is not a mask"
            continue
        masks += 1
        np.testing.assert_array_equal(mask, stored if stored.ndim == 2 else stored[:, :, 0], err_msg=str(path))
    assert masks >= 15


def test_volumes_agree_with_nibabel(shared_data: Path) -> None:
    files = sample_files(shared_data / "hippocampus", 80)
    assert all(suffix_of(path) == ".nii.gz" for path in files)
    for path in files:
        np.testing.assert_array_equal(
            read_image(path, LIMITS)[..., 0], nibabel.load(path).get_fdata(dtype=np.float32).T
        )

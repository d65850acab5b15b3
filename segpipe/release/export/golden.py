"""Golden images: a few test images in a bundle, as files that a user could upload, with the masks that the model gives for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from segpipe.errors import DataError
from segpipe.files import write_bytes, write_json
from segpipe.inference.segmenter import Segmenter
from segpipe.release.bundle import GOLDEN_DIR, GOLDEN_FILE, Golden
from segpipe.samples import Sample

MAX_EDGE = 1024
"""Longest edge of a golden image, pixels. Larger images are cropped to their centre, so that a bundle stays small."""
MAX_EDGE_3D = 128
"""Longest edge of a golden volume, voxels."""


class Reader(Protocol):
    """Test images: samples by index, and their pixel counts by class."""

    @property
    def class_pixels(self) -> npt.NDArray[np.int64]:
        """Number of pixels by image and class, (n, n_classes)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def choose_images(class_pixels: npt.NDArray[np.int64], count: int) -> list[int]:
    """Choose golden images: for each class the image with most of its pixels, beginning with the rarest class, then evenly spaced ones.

    Args:
        class_pixels: number of pixels by image and class, (n, n_classes).
        count: largest number of images.

    Returns:
        Indices of images.
    """
    total = len(class_pixels)
    present = np.flatnonzero(class_pixels.sum(0) > 0)
    by_rarity = present[np.argsort(class_pixels.sum(0)[present], kind="stable")]
    richest = [int(class_pixels[:, c].argmax()) for c in by_rarity]
    evenly_spaced = [int(i) for i in np.linspace(0, total - 1, min(total, 2 * count)).round()]
    return list(dict.fromkeys([*richest, *evenly_spaced, *range(total)]))[:count]


def centre_crop(image: np.ndarray, edge: int | None = None) -> np.ndarray:
    """Crop an image (H, W, C) or a volume (D, H, W, C) to its centre.

    Args:
        image: the image or volume.
        edge: largest size along each axis; by default `MAX_EDGE` or `MAX_EDGE_3D`.
    """
    edge = edge or (MAX_EDGE if image.ndim == 3 else MAX_EDGE_3D)
    starts = [max(0, (size - edge) // 2) for size in image.shape[:-1]]
    return np.ascontiguousarray(image[tuple(slice(start, start + edge) for start in starts)])


def encode_volume(volume: np.ndarray, spacing: tuple[float, ...] | None) -> bytes:
    """Encode a volume (D, H, W) or (D, H, W, C) as NIfTI, with its voxel size in mm by axis (depth, height, width)."""
    from segpipe.data.images import Geometry, encode_nifti

    if spacing is None:
        return encode_nifti(volume)
    depth, height, width = spacing
    affine = np.diag([width, height, depth, 1.0])
    return encode_nifti(volume, Geometry((depth, height, width), "RAS", tuple(affine.ravel().tolist())))


def encode_image(image: np.ndarray, key: str, spacing: tuple[float, ...] | None = None) -> tuple[str, bytes]:
    """Encode an image as a file that decodes to exactly the same array: PNG for grey and colour integers, NIfTI for volumes, else TIFF.

    Args:
        image: (H, W, C) with any number of channels of uint8, uint16 or float32, or a volume (D, H, W, C).
        key: name of the image, for error messages.
        spacing: voxel size of a volume in mm by axis (depth, height, width).

    Returns:
        The suffix of the file's name, and its bytes.

    Raises:
        DataError: none of these formats can hold the array.
    """
    from segpipe.data.images import decode_image, encode_png, encode_tiff

    if image.ndim == 4:
        return ".nii.gz", encode_volume(image, spacing)
    if image.dtype not in (np.uint8, np.uint16, np.float32):
        raise DataError(
            "this test image cannot be stored in the bundle as a golden image",
            where=key,
            found=f"{image.dtype}, shape {image.shape}",
            expected="uint8, uint16 or float32",
        )
    if image.shape[2] in (1, 3) and image.dtype != np.float32:
        suffix, encoded = ".png", encode_png(image[:, :, 0] if image.shape[2] == 1 else image)
    else:
        suffix, encoded = ".tiff", encode_tiff(image)
    assert np.array_equal(decode_image(encoded, key, 1e6), image), "the file decodes to the same array"
    return suffix, encoded


def write_inputs(reader: Reader, count: int, bundle: Path) -> list[Golden]:
    """Choose golden images, and write them (`golden/input-N.*`) and their list into a bundle.

    Args:
        reader: the test images.
        count: number of golden images.
        bundle: the folder of the bundle.

    Returns:
        The golden images; `write_expected` must still write their masks.
    """
    pairs, rows = [], []
    for number, index in enumerate(choose_images(reader.class_pixels, count)):
        sample = reader[index]
        suffix, content = encode_image(centre_crop(sample.image), sample.key, sample.spacing)
        names = {
            "input": f"input-{number}{suffix}",
            "expected": f"expected-{number}{'.png' if sample.image.ndim == 3 else suffix}",
        }
        write_bytes(bundle / GOLDEN_DIR / names["input"], content)
        rows.append({"key": sample.key, **names})
        pairs.append(Golden(sample.key, bundle / GOLDEN_DIR / names["input"], bundle / GOLDEN_DIR / names["expected"]))
    write_json(bundle / GOLDEN_FILE, {"images": rows})
    return pairs


def write_expected(segmenter: Segmenter, pairs: Sequence[Golden]) -> None:
    """Write the masks that a segmenter gives for the golden images: class ids as PNG, or as NIfTI for volumes."""
    from segpipe.data.images import encode_png

    for pair in pairs:
        arguments = pair.predict_arguments()
        ids = segmenter.predict(**arguments).class_ids
        write_bytes(pair.expected, encode_png(ids) if ids.ndim == 2 else encode_volume(ids, arguments["spacing"]))

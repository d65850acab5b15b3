"""Golden images: a few test images that travel with a model, as files that a user could upload."""

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
"""A larger image travels as its middle: a bundle should stay small."""
MAX_EDGE_3D = 128
"""The same of a volume."""


class Reader(Protocol):
    """The test images: samples by index, and how many pixels of each class they hold (n, n_classes)."""

    @property
    def class_pixels(self) -> npt.NDArray[np.int64]:
        """Pixels by image and class."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def choose_images(class_pixels: npt.NDArray[np.int64], count: int) -> list[int]:
    """Indices of at most `count` images: the one richest in each class, the rarest class first, then evenly spaced ones."""
    total = len(class_pixels)
    present = np.flatnonzero(class_pixels.sum(0) > 0)
    by_rarity = present[np.argsort(class_pixels.sum(0)[present], kind="stable")]
    richest = [int(class_pixels[:, c].argmax()) for c in by_rarity]
    even = [int(i) for i in np.linspace(0, total - 1, min(total, 2 * count)).round()]
    return list(dict.fromkeys([*richest, *even, *range(total)]))[:count]


def centre_crop(image: np.ndarray, edge: int | None = None) -> np.ndarray:
    """The middle of an image (H, W, C) or a volume (D, H, W, C), at most `edge` pixels along each axis; by default `MAX_EDGE` or
    `MAX_EDGE_3D`."""
    edge = edge or (MAX_EDGE if image.ndim == 3 else MAX_EDGE_3D)
    starts = [max(0, (size - edge) // 2) for size in image.shape[:-1]]
    return np.ascontiguousarray(image[tuple(slice(start, start + edge) for start in starts)])


def encode_volume(volume: np.ndarray, spacing: tuple[float, ...] | None) -> bytes:
    """A volume (D, H, W) or (D, H, W, C) as NIfTI with this voxel size, mm by axis."""
    from segpipe.data.images import Geometry, encode_nifti

    if spacing is None:
        return encode_nifti(volume)
    depth, height, width = spacing
    affine = np.diag([width, height, depth, 1.0])
    return encode_nifti(volume, Geometry((depth, height, width), "RAS", tuple(affine.ravel().tolist())))


def encode_image(image: np.ndarray, key: str, spacing: tuple[float, ...] | None = None) -> tuple[str, bytes]:
    """An image (H, W, 1 or 3) as a file that decodes to the very same array: PNG for integers, TIFF for float32. A volume
    (D, H, W, C) as NIfTI, with its voxel size (mm by axis).

    Returns the suffix and the bytes. Raises DataError for an array that no such file holds.
    """
    from segpipe.data.images import decode_image, encode_png

    if image.ndim == 4:
        return ".nii.gz", encode_volume(image, spacing)
    if image.shape[2] not in (1, 3) or image.dtype not in (np.uint8, np.uint16, np.float32):
        raise DataError(
            "this test image cannot travel with the model",
            where=key,
            found=f"{image.dtype}, shape {image.shape}",
            expected="1 or 3 channels of uint8, uint16 or float32",
        )
    plain = image[:, :, 0] if image.shape[2] == 1 else image
    if image.dtype == np.float32:
        import cv2

        done, content = cv2.imencode(".tiff", np.ascontiguousarray(plain[..., ::-1] if plain.ndim == 3 else plain))
        assert done, "TIFF takes float32"
        suffix, encoded = ".tiff", content.tobytes()
    else:
        suffix, encoded = ".png", encode_png(plain)
    assert np.array_equal(decode_image(encoded, key, 1e6), image), "what was written reads back"
    return suffix, encoded


def write_inputs(reader: Reader, count: int, bundle: Path) -> list[Golden]:
    """Write `golden/input-N.*` for `count` images, and the list of them; the expected masks are still to come."""
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
    """Write the masks that a segmenter gives for the golden images, as PNG of class ids, of volumes as NIfTI."""
    from segpipe.data.images import encode_png

    for pair in pairs:
        given = pair.given()
        ids = segmenter.predict(**given).class_ids
        write_bytes(pair.expected, encode_png(ids) if ids.ndim == 2 else encode_volume(ids, given["spacing"]))

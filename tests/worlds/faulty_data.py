"""A sound dataset, small and of made-up cells, and the ways in which single files of it are broken."""

from __future__ import annotations

import gzip
import io
import shutil
import struct
import zlib
from pathlib import Path

import cv2
import nibabel as nib
import numpy as np
import tifffile
from PIL import Image

SHAPE = (48, 64)
DEEP = (6, 10, 12)
"""(D, H, W) of volumes."""
CLASSES = "classes:\n" + "".join(
    f"  - {{name: {name}, value: {value}, color: [{value}, {90 * value}, 9]}}\n"
    for value, name in enumerate(("background", "cell", "dirt"))
)
SPLITS = ("train", "train", "train", "train", "val", "test")


def sample(seed: int, shape: tuple[int, int] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) uint8 and (H, W) uint8 class values: two cells and some dirt, where the seed puts them."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, np.uint8)
    for value, radius in ((1, 9), (1, 7), (2, 3)):
        centre = (int(rng.integers(shape[1])), int(rng.integers(shape[0])))
        cv2.circle(mask, centre, radius, value, -1)
    mask[:3, :3], mask[-3:, -3:] = 1, 2
    image = 60 + 50 * mask[:, :, None] + rng.integers(0, 30, (*shape, 3))
    return image.astype(np.uint8), mask


def volume(seed: int, shape: tuple[int, int, int] = DEEP) -> tuple[np.ndarray, np.ndarray]:
    """(D, H, W) float32 and (D, H, W) uint8 class values."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    labels[2:4, 3:7, 4:8], labels[1, 1, 1:4] = 1, 2
    return (labels * 40 + rng.normal(100, 9, shape)).astype(np.float32), labels


def png(array: np.ndarray) -> bytes:
    return cv2.imencode(".png", array)[1].tobytes()


def encoded(array: np.ndarray, ending: str) -> bytes:
    return cv2.imencode(ending, array)[1].tobytes()


def tiff(array: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


def pillow(array: np.ndarray, mode: str, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).convert(mode).save(stream, format, **options)
    return stream.getvalue()


def nifti(
    array: np.ndarray,
    spacing: tuple[float, float, float] = (1, 1, 1),
    flips: tuple[int, int, int] = (1, 1, 1),
    origin: tuple[float, float, float] = (0, 0, 0),
) -> bytes:
    """(D, H, W) as .nii.gz, spacing in (D, H, W) order; flips and origin of the x, y and z axis."""
    affine = np.diag([*(s * f for s, f in zip(spacing[::-1], flips, strict=True)), 1.0])
    affine[:3, 3] = origin
    return gzip.compress(nib.Nifti1Image(np.transpose(array, (2, 1, 0)), affine).to_bytes(), mtime=0)


def png_of_header(width: int, height: int) -> bytes:
    """A PNG that promises more pixels than anybody has memory for."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 9999))
        + chunk(b"IEND", b"")
    )


def tiff_of_header(width: int, height: int) -> bytes:
    """A TIFF of one pixel whose tags say that it is far larger."""
    content = tiff(np.zeros((7, 5), np.uint8))
    for tag, old, new in ((256, 5, width), (257, 7, height)):
        for kind, form in ((3, "<HHIHH"), (4, "<HHII")):
            entry = struct.pack(form, *((tag, kind, 1, old, 0) if kind == 3 else (tag, kind, 1, old)))
            content = content.replace(entry, struct.pack("<HHII", tag, 4, 1, new))
    return content


def nifti_of_header(*sizes: int) -> bytes:
    """A .nii.gz whose header promises sizes (X, Y, Z), with few bytes behind it."""
    content = bytearray(nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)).to_bytes())
    struct.pack_into("<8h", content, 40, 3, *sizes, 1, 1, 1, 1)
    return gzip.compress(bytes(content), mtime=0)


def gzip_bomb() -> bytes:
    """A .nii.gz whose header is modest and whose stream unpacks to a thousand times its size."""
    content = nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)).to_bytes()
    return gzip.compress(content + b"\0" * (64 << 20), mtime=0)


def write_valid(data: Path, names: tuple[str, ...], deep: bool = False) -> dict[str, str]:
    """A sound data/ with these keys; returns the split of each."""
    for folder in ("images", "masks"):
        (data / folder).mkdir(parents=True)
    for seed, name in enumerate(names):
        if deep:
            image, mask = volume(seed)
            put(data, name, nifti(image), nifti(mask), ending=".nii.gz")
        else:
            image, mask = sample(seed)
            put(data, name, png(image), png(mask))
    (data / "dataset.yaml").write_text(CLASSES)
    return {name: SPLITS[i % len(SPLITS)] for i, name in enumerate(names)}


def put(data: Path, key: str, image: bytes | None, mask: bytes | None, ending: str = ".png") -> None:
    """Write the files of one key; None: no such file."""
    if image is not None:
        (data / "images" / f"{key}{ending}").write_bytes(image)
    if mask is not None:
        (data / "masks" / f"{key}{'.nii.gz' if ending == '.nii.gz' else '.png'}").write_bytes(mask)


def write_samples(data: Path, split_of: dict[str, str]) -> None:
    lines = ["key,group,split", *(f'"{key}",,{split}' for key, split in split_of.items())]
    (data / "samples.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def as_folder(source: Path) -> None:
    """A sound source in the layout `folder`."""
    write_valid(source, tuple("abcdef"))


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder

"""Decode NumPy arrays: .npy, and .npz files that hold one image or mask. Pickled objects are never loaded."""

from __future__ import annotations

import io
import math
import zipfile

import numpy as np

from segpipe.data.images.bounds import RESTORE_FIX, Bounds, decoder_errors_as_data_errors
from segpipe.errors import DataError

_NPY, _ZIP = b"\x93NUMPY", b"PK\x03\x04"
_MAX_CHANNELS_LAST = 16
"""A last axis of at most this length, shorter than the two others, holds channels."""
_HEADER_BYTES = 1 << 16
IMAGE_NAMES = ("image", "img", "x", "data")
MASK_NAMES = ("mask", "label", "labels", "seg", "segmentation", "gt", "y")


def is_numpy(content: bytes) -> bool:
    """Return whether the bytes begin like a .npy or .npz file (a ZIP archive)."""
    return content[:6] == _NPY or content[:4] == _ZIP


def decode_numpy(content: bytes, where: str, bounds: Bounds, is_mask: bool) -> tuple[np.ndarray, list[str]]:
    """Decode an array.

    Args:
        content: the bytes of the file.
        where: the name of the file in errors.
        bounds: the limits for the file. `bounds.pages` says what the first axis of three long ones is.
        is_mask: True to look for a mask; an archive may hold both.

    Returns:
        image: (H, W, C), or (D, H, W, C), in the stored type; booleans become 0 and 1.
        notes: the conversions that were made.

    Raises:
        DataError: if the file is too large, damaged, or not an image.
    """
    with decoder_errors_as_data_errors(where):
        notes = []
        if content[:4] == _ZIP:
            content, note = _member(content, where, bounds, is_mask)
            notes.append(note)
        shape, dtype, column_major, offset = _header(content, where)
        kind = array_layout(shape, bounds, where)
        expected = math.prod(shape) * dtype.itemsize
        if len(content) - offset < expected:
            raise DataError(
                "cannot be decoded: cut short", where=where, found=f"{len(content) - offset:,} bytes of values",
                expected=f"{expected:,}", fix=RESTORE_FIX,
            )  # fmt: skip
        flat = np.frombuffer(content, dtype, math.prod(shape), offset)
        array = flat.reshape(shape, order="F" if column_major else "C")
    array, layout_notes = arranged(array, kind)
    return array, [*notes, *layout_notes]


def arranged(array: np.ndarray, kind: str) -> tuple[np.ndarray, list[str]]:
    """Arrange an array as (H, W, C) or (D, H, W, C); booleans become 0 and 1.

    Args:
        array: the stored values.
        kind: the meaning of its axes (`array_layout`).

    Returns:
        The array, and a note if the first axis holds channels.
    """
    notes = []
    if kind == "CHW":
        notes.append(f"the first of three axes read as {array.shape[0]} channels")
        array = np.moveaxis(array, 0, -1)
    array = array.astype(np.uint8) if array.dtype == bool else array
    return np.ascontiguousarray(array if "C" in kind else array[..., None]), notes


def _header(content: bytes, where: str) -> tuple[tuple[int, ...], np.dtype, bool, int]:
    """Return shape, dtype, whether values are stored column by column, and where they begin."""
    stream = io.BytesIO(content[:_HEADER_BYTES])
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, column_major, dtype = read(stream)
    if dtype.hasobject or dtype.kind not in "buif" or dtype.itemsize > 8:
        raise DataError(
            "unsupported type of values", where=where, found=dtype, expected="integers or floats of up to 64 bits",
            fix="save numbers: np.save(path, image.astype(np.float32))",
        )  # fmt: skip
    return shape, dtype, column_major, stream.tell()


def array_layout(shape: tuple[int, ...], bounds: Bounds, where: str) -> str:
    """Return the meaning of the axes of an array, HW, HWC, CHW, DHW or DHWC, after its size is checked.

    Raises:
        DataError: if the axes are not those of an image or a volume, if their meaning is not clear, or if the array is too large.
    """
    kind = _kind_of_axes(shape, bounds, where)
    *depth, height, width, channels = _sizes(shape, kind)
    bounds.check(where, height, width, channels, depth[0] if depth else 1)
    if depth and not bounds.volumes:
        raise DataError("is a volume", where=where, expected="a 2D image", fix="save its slices as PNG")
    return kind


def _kind_of_axes(shape: tuple[int, ...], bounds: Bounds, where: str) -> str:
    if len(shape) == 2:
        return "HW"
    if len(shape) == 4 and shape[3] <= _MAX_CHANNELS_LAST:
        return "DHWC"
    if len(shape) == 3 and shape[2] <= _MAX_CHANNELS_LAST and shape[2] < min(shape[:2]):
        return "HWC"
    if len(shape) == 3 and bounds.pages != "refuse":
        return "CHW" if bounds.pages == "channels" else "DHW"
    if len(shape) == 3:
        raise DataError(
            "the first axis may be channels or slices",
            where=where,
            found=" x ".join(map(str, shape)),
            expected="height x width x channels",
            fix="set data.pages to channels or volume, or save the channels as the last axis",
        )
    raise DataError(
        "the axes do not form an image", where=where, found=" x ".join(map(str, shape)) or "one number",
        expected="height x width x channels, or depth x height x width x channels", fix="save one image per file",
    )  # fmt: skip


def _sizes(shape: tuple[int, ...], kind: str) -> tuple[int, ...]:
    """Return (H, W, C) or (D, H, W, C)."""
    sizes = dict(zip(kind, shape, strict=True)) | ({} if "C" in kind else {"C": 1})
    return tuple(sizes[axis] for axis in ("DHWC" if "D" in kind else "HWC"))


def _member(content: bytes, where: str, bounds: Bounds, is_mask: bool) -> tuple[bytes, str]:
    """Return the bytes of the array of an archive that is the image or the mask, and a note that names it."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}
        usual_names = MASK_NAMES if is_mask else IMAGE_NAMES
        candidates = list(names) if len(names) == 1 else [name for name in names if name.lower() in usual_names]
        if len(candidates) != 1:
            raise DataError(
                f"no single array is the {'mask' if is_mask else 'image'}",
                where=where,
                found=", ".join(names) or "no .npy in the archive",
                expected=f"one array, or one called {' or '.join(usual_names[:2])}",
                fix="save one array per file",
            )
        with archive.open(names[candidates[0]]) as stream:
            start = stream.read(_HEADER_BYTES)
            shape, dtype, _, offset = _header(start, where)
            array_layout(shape, bounds, where)
            rest = stream.read(max(0, offset + math.prod(shape) * dtype.itemsize - len(start)))
    return start + rest, f"array {candidates[0]} of {len(names)}"

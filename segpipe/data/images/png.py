"""Decode PNG files: completely or with an error, and fast if all rows have one simple filter, as masks often have."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import cv2
import numpy as np

from segpipe.data.images.bounds import RESTORE_FIX
from segpipe.errors import DataError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY = 0
"""The colour type of a header for one channel."""
_FILTER_AXES = {0: None, 1: 1, 2: 0}
"""The axis of the stored differences, by the filter type of a row: no differences, to the left pixel, to the pixel above."""
_PEEKED_ROWS = 16


def decode_png(content: bytes, where: str) -> np.ndarray:
    """Decode a PNG file.

    Args:
        content: the bytes of the file.
        where: the name of the file in errors.

    Returns:
        (H, W) or (H, W, 1 or 3), uint8 or uint16 as stored, without alpha.

    Raises:
        DataError: if the file is truncated or a checksum does not match.
        Exception: an error of the decoder, if the file is damaged in another way.
    """
    import imagecodecs

    _check_chunks(content, where, except_name=b"IDAT")
    array = _simple_rows(content)
    if array is None:
        try:
            # Unlike OpenCV, imagecodecs reports missing and damaged pixels.
            array = np.atleast_3d(imagecodecs.png_decode(content))
        except imagecodecs.PngError:
            _check_chunks(content, where)
            raise
    if array.shape[2] == 2:  # the last of two or four channels is alpha
        return cv2.extractChannel(array, 0)
    return cv2.cvtColor(array, cv2.COLOR_RGBA2RGB) if array.shape[2] == 4 else array


def png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the names and contents of the chunks of a PNG file; the content of chunks with pixels is left empty."""
    for name, data in _chunks(content):
        yield name, b"" if name == b"IDAT" else bytes(data)


def _simple_rows(content: bytes) -> np.ndarray | None:
    """Decode a grey image whose rows all have the same simple filter, as in masks written by OpenCV and many other programs.

    libdeflate unpacks such files many times faster than libpng with zlib.

    Returns:
        (H, W, 1), uint8 or uint16; None for any other file, and for a damaged one.
    """
    import imagecodecs

    width, height, bits, colours, _, _, interlaced = struct.unpack_from(">IIBBBBB", content, 16)
    if bits not in (8, 16) or colours != _GREY or interlaced:
        return None
    row_bytes = 1 + width * bits // 8  # one byte for the filter, then the pixels
    packed = b"".join(data for name, data in _chunks(content) if name == b"IDAT")
    try:
        filters = zlib.decompressobj().decompress(packed, _PEEKED_ROWS * row_bytes)[::row_bytes]
        if not filters or len(set(filters)) > 1 or filters[0] not in _FILTER_AXES:
            return None
        unpacked = imagecodecs.deflate_decode(packed, raw=False, out=height * row_bytes)
    except (zlib.error, imagecodecs.DeflateError):
        return None
    if len(unpacked) != height * row_bytes:
        return None
    rows = np.frombuffer(unpacked, np.uint8).reshape(height, row_bytes)
    if (rows[:, 0] != filters[0]).any():
        return None
    stored = np.ascontiguousarray(rows[:, 1:]).reshape(height, width, bits // 8)  # differences are stored per byte
    axis = _FILTER_AXES[filters[0]]
    pixels = stored if axis is None else imagecodecs.delta_decode(stored, axis=axis, out=stored)
    return pixels if bits == 8 else pixels.view(">u2").astype(np.uint16)


def _check_chunks(content: bytes, where: str, except_name: bytes = b"") -> None:
    """Check that all chunks up to the last are complete and that their checksums match.

    The checksums of chunks named `except_name` are not checked: decoding checks those of the pixels.
    """
    view, offset, name = memoryview(content), len(_SIGNATURE), b""
    while name != b"IEND":
        try:
            length, name = struct.unpack_from(">I4s", content, offset)
            (checksum,) = struct.unpack_from(">I", content, offset + 8 + length)
        except struct.error as error:
            raise DataError("cannot be decoded: cut short", where=where, fix=RESTORE_FIX) from error
        if name != except_name and zlib.crc32(view[offset + 4 : offset + 8 + length]) != checksum:
            raise DataError(
                "cannot be decoded: a checksum does not match",
                where=where,
                found=f"chunk {name.decode('latin-1')}",
                expected="the bytes that were written",
                fix=RESTORE_FIX,
            )
        offset += length + 12


def _chunks(content: bytes) -> Iterator[tuple[bytes, memoryview]]:
    view, offset = memoryview(content), len(_SIGNATURE)
    while offset + 8 <= len(content):
        length, name = struct.unpack_from(">I4s", content, offset)
        yield name, view[offset + 8 : offset + 8 + length]
        offset += length + 12

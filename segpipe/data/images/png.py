"""PNG: whole or an error, and fast where its rows are simple, as those of masks are."""

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
"""The colour type of a header that stands for one channel."""
_AXES = {0: None, 1: 1, 2: 0}
"""Along which axis differences were stored, by the filter of a row: none, those to the left, those to above."""
_PEEKED_ROWS = 16


def decode_png(content: bytes, where: str) -> np.ndarray:
    """(H, W) or (H, W, 1 or 3), uint8 or uint16 as stored, without alpha. Raises DataError for a file that is cut short or whose
    checksums do not fit, an error of the decoder for one that is broken otherwise.
    """
    import imagecodecs

    _check(content, where, but=b"IDAT")
    array = _simple_rows(content)
    if array is None:
        try:
            array = np.atleast_3d(
                imagecodecs.png_decode(content)
            )  # unlike OpenCV it says where pixels are missing or broken
        except imagecodecs.PngError:
            _check(content, where)
            raise
    if array.shape[2] == 2:  # the last of two or four is alpha
        return cv2.extractChannel(array, 0)
    return cv2.cvtColor(array, cv2.COLOR_RGBA2RGB) if array.shape[2] == 4 else array


def png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and contents of a PNG's chunks; pixels are passed over."""
    for name, data in _chunks(content):
        yield name, b"" if name == b"IDAT" else bytes(data)


def _simple_rows(content: bytes) -> np.ndarray | None:
    """(H, W, 1), uint8 or uint16, of a grey file whose rows are all stored in one simple way, as OpenCV and many others store masks;
    None for any other, or a broken one. libdeflate unpacks many times faster than libpng's zlib.
    """
    import imagecodecs

    width, height, bits, colours, _, _, interlaced = struct.unpack_from(">IIBBBBB", content, 16)
    if bits not in (8, 16) or colours != _GREY or interlaced:
        return None
    row = 1 + width * bits // 8  # the filter, and the pixels
    packed = b"".join(data for name, data in _chunks(content) if name == b"IDAT")
    try:
        first = zlib.decompressobj().decompress(packed, _PEEKED_ROWS * row)[::row]
        if not first or len(set(first)) > 1 or first[0] not in _AXES:
            return None
        unpacked = imagecodecs.deflate_decode(packed, raw=False, out=height * row)
    except (zlib.error, imagecodecs.DeflateError):
        return None
    if len(unpacked) != height * row:
        return None
    rows = np.frombuffer(unpacked, np.uint8).reshape(height, row)
    if (rows[:, 0] != first[0]).any():
        return None
    stored = np.ascontiguousarray(rows[:, 1:]).reshape(height, width, bits // 8)  # differences are those of bytes
    axis = _AXES[first[0]]
    pixels = stored if axis is None else imagecodecs.delta_decode(stored, axis=axis, out=stored)
    return pixels if bits == 8 else pixels.view(">u2").astype(np.uint16)


def _check(content: bytes, where: str, but: bytes = b"") -> None:
    """Every chunk is whole, up to the last, and has its checksum (those of one name, which decoding checks itself, aside)."""
    view, at, name = memoryview(content), len(_SIGNATURE), b""
    while name != b"IEND":
        try:
            length, name = struct.unpack_from(">I4s", content, at)
            (checksum,) = struct.unpack_from(">I", content, at + 8 + length)
        except struct.error as error:
            raise DataError("cannot be decoded: cut short", where=where, fix=RESTORE_FIX) from error
        if name != but and zlib.crc32(view[at + 4 : at + 8 + length]) != checksum:
            raise DataError(
                "cannot be decoded: a checksum does not fit", where=where, found=f"chunk {name.decode('latin-1')}",
                expected="bytes as they were written", fix=RESTORE_FIX,
            )
        at += length + 12


def _chunks(content: bytes) -> Iterator[tuple[bytes, memoryview]]:
    view, at = memoryview(content), len(_SIGNATURE)
    while at + 8 <= len(content):
        length, name = struct.unpack_from(">I4s", content, at)
        yield name, view[at + 8 : at + 8 + length]
        at += length + 12

"""JPEG 2000 (.jp2, .j2k) and JPEG XL (.jxl). Their sizes are read from the header before imagecodecs decodes them."""

from __future__ import annotations

import struct

import numpy as np

from segpipe.data.images.bounds import RESTORE_FIX, Bounds, decoder_errors_as_data_errors
from segpipe.errors import DataError

_CODESTREAM = b"\xff\x4f\xff\x51"
_JP2 = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_JXL_CODESTREAM, _JXL_CONTAINER = b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n"
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
"""Width to height, by its number in the header of JPEG XL."""
_SIZE_BITS = (9, 13, 18, 30)


def is_jpeg2000(content: bytes) -> bool:
    """Return whether the bytes begin like a JPEG 2000 file or codestream."""
    return content[:12] == _JP2 or content[:4] == _CODESTREAM


def is_jpegxl(content: bytes) -> bool:
    """Return whether the bytes begin like a JPEG XL file or codestream."""
    return content[:12] == _JXL_CONTAINER or content[:2] == _JXL_CODESTREAM


def decode_jpeg2000(content: bytes, where: str, bounds: Bounds) -> tuple[np.ndarray, list[str]]:
    """Decode a JPEG 2000 image to (H, W, C), uint8 or uint16; a channel that the file calls opacity is dropped, with a note.

    Raises:
        DataError: if the file is too large or damaged.
    """
    import imagecodecs

    with decoder_errors_as_data_errors(where):
        start = content.find(_CODESTREAM)
        width, height, left, top = struct.unpack_from(">4I", content, start + 8)
        (channels,) = struct.unpack_from(">H", content, start + 40)
        if start < 0:
            raise DataError("cannot be decoded: no image in it", where=where, fix=RESTORE_FIX)
        bounds.check(where, height - top, width - left, channels)
        array = np.atleast_3d(imagecodecs.jpeg2k_decode(content))
        opacity = [index for index in _opacity_channels(content[:start]) if index < array.shape[2]]
    if not opacity:
        return array, []
    return np.delete(array, opacity, axis=2), ["alpha channel dropped"]


def decode_jpegxl(content: bytes, where: str, bounds: Bounds) -> tuple[np.ndarray, list[str]]:
    """Decode a JPEG XL image to (H, W, 1 or 3), in the stored type; alpha is dropped, with a note.

    Raises:
        DataError: if the file is too large, damaged, or an animation.
    """
    import imagecodecs

    with decoder_errors_as_data_errors(where):
        height, width = _jxl_size(_jxl_codestream(content))
        bounds.check(where, height, width, 4)
        array = imagecodecs.jpegxl_decode(content)
        if array.ndim > 3:
            raise DataError(
                "holds several pages", where=where, found=f"{len(array)} frames", expected="one image per file",
                fix="save each frame as a separate file",
            )  # fmt: skip
    array = np.atleast_3d(array)
    if array.shape[2] in (2, 4):  # colours are one or three channels; imagecodecs adds alpha where the file has it
        return np.ascontiguousarray(array[..., :-1]), ["alpha channel dropped"]
    return array, []


def _opacity_channels(boxes: bytes) -> list[int]:
    """Return the channels that the box `cdef` of a JP2 header calls opacity."""
    start = boxes.find(b"cdef")
    if start < 4 or start + 6 > len(boxes):
        return []
    (count,) = struct.unpack_from(">H", boxes, start + 4)
    definitions = [
        struct.unpack_from(">3H", boxes, start + 6 + 6 * k) for k in range(count) if start + 12 + 6 * k <= len(boxes)
    ]
    return [channel for channel, kind, _ in definitions if kind in (1, 2)]


def _jxl_codestream(content: bytes) -> bytes:
    """Return the beginning of the codestream."""
    if content[:2] == _JXL_CODESTREAM:
        return content[:64]
    offset = 0
    while offset + 16 <= len(content):
        length, name = struct.unpack_from(">I4s", content, offset)
        header = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", content, offset + 8)
            header = 16
        if name in (b"jxlc", b"jxlp"):
            begin = offset + header + (4 if name == b"jxlp" else 0)
            return content[begin : begin + 64]
        if length < header:
            break
        offset += length
    raise ValueError("no codestream")


def _jxl_size(codestream: bytes) -> tuple[int, int]:
    """Return height and width from the first bits of a codestream (ISO/IEC 18181-1, SizeHeader)."""
    bits, position = int.from_bytes(codestream[2:], "little"), 0

    def read(count: int) -> int:
        nonlocal position
        value = bits >> position & ((1 << count) - 1)
        position += count
        return value

    def edge(in_eights: bool) -> int:
        return 8 * (1 + read(5)) if in_eights else 1 + read(_SIZE_BITS[read(2)])

    in_eights = bool(read(1))
    height = edge(in_eights)
    ratio = read(3)
    if ratio == 0:
        return height, edge(in_eights)
    numerator, denominator = _RATIOS[ratio]
    return height, height * numerator // denominator

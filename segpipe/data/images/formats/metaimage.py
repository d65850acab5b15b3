"""MetaImage volumes and images in one file (.mha); the format is described at https://itk.org/Wiki/MetaIO/Documentation."""

from __future__ import annotations

import math
import zlib

import numpy as np

from segpipe.data.images.bounds import RESTORE_FIX, Bounds, decoder_errors_as_data_errors
from segpipe.data.images.formats.volume_array import LPS_TO_RAS, affine_of, geometry_of
from segpipe.data.images.geometry import CANONICAL, Geometry
from segpipe.errors import DataError

_MAX_HEADER = 1 << 16
_TYPES = {
    "MET_UCHAR": "u1",
    "MET_CHAR": "i1",
    "MET_USHORT": "u2",
    "MET_SHORT": "i2",
    "MET_UINT": "u4",
    "MET_INT": "i4",
    "MET_ULONG_LONG": "u8",
    "MET_LONG_LONG": "i8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
Header = dict[str, str]


def is_metaimage(content: bytes) -> bool:
    """Return whether the bytes begin like a MetaImage header."""
    start = content[:256]
    return start.startswith((b"ObjectType = Image", b"ObjectType=Image", b"NDims")) or b"\nNDims" in start


def decode_metaimage(content: bytes, where: str, bounds: Bounds) -> tuple[np.ndarray, list[str]]:
    """Decode the values of a MetaImage file.

    Args:
        content: the bytes of the file.
        where: the name of the file in errors.
        bounds: the limits for the file.

    Returns:
        (D, H, W, C), turned to RAS, or (H, W, C); in the stored type. And the conversions that were made.

    Raises:
        DataError: if the file is too large, truncated or damaged, or keeps its data in another file.
    """
    with decoder_errors_as_data_errors(where):
        header, offset = _header(content, where)
        sizes, channels = _sizes(header, where)
        *depth, height, width = sizes[::-1]
        bounds.check(where, height, width, channels, depth[0] if depth else 1)
        if depth and not bounds.volumes:
            raise DataError("is a volume", where=where, expected="a 2D image", fix="save its slices as PNG")
        order = ">" if _is_true(header, "BinaryDataByteOrderMSB", "ElementByteOrderMSB") else "<"
        dtype = np.dtype(order + _TYPES[header["ElementType"]])
        size = math.prod(sizes) * channels * dtype.itemsize
        data = content[offset:]
        if _is_true(header, "CompressedData"):
            data = zlib.decompressobj().decompress(data, size)
        if len(data) < size:
            raise DataError(
                "cannot be decoded: cut short", where=where, found=f"{len(data):,} bytes of values",
                expected=f"{size:,}", fix=RESTORE_FIX,
            )  # fmt: skip
        array = np.frombuffer(data, dtype, size // dtype.itemsize).reshape(*sizes[::-1], channels)
        geometry = _geometry(header, sizes, where)
    if geometry is None:
        return array, []
    return geometry.to_canonical(array), [f"turned from {geometry.orientation} to {CANONICAL}"] * geometry.is_turned


def metaimage_geometry(content: bytes, where: str) -> Geometry | None:
    """Read the geometry of a volume from its header; None for an image."""
    with decoder_errors_as_data_errors(where):
        header, _ = _header(content, where)
        return _geometry(header, _sizes(header, where)[0], where)


def _header(content: bytes, where: str) -> tuple[Header, int]:
    """Return the fields of the header, and where the data begin."""
    header: Header = {}
    offset = 0
    while "ElementDataFile" not in header:
        end = content.find(b"\n", offset, _MAX_HEADER)
        if end < 0:
            raise DataError("cannot be decoded: cut short in the header", where=where, fix=RESTORE_FIX)
        name, _, value = content[offset:end].decode("latin-1").partition("=")
        header[name.strip()] = value.strip()
        offset = end + 1
    if header["ElementDataFile"].upper() != "LOCAL":
        raise DataError(
            "keeps its data in another file", where=where, found=header["ElementDataFile"], expected="LOCAL",
            fix="save header and data as one .mha file",
        )  # fmt: skip
    if header.get("ElementType") not in _TYPES or not _is_true(header, "BinaryData", default=True):
        raise DataError(
            "unsupported type of values", where=where, found=header.get("ElementType", "none"),
            expected="binary integers or floats", fix="save it as MET_SHORT or MET_FLOAT",
        )  # fmt: skip
    return header, offset


def _sizes(header: Header, where: str) -> tuple[tuple[int, ...], int]:
    """Return the sizes, the fastest axis first, and the number of channels."""
    sizes = tuple(int(size) for size in header["DimSize"].split())
    if len(sizes) not in (2, 3) or min(sizes) < 1:
        raise DataError(
            "the axes do not form an image or a volume", where=where, found=header["DimSize"],
            expected="width, height and depth", fix="save one volume per file",
        )  # fmt: skip
    return sizes, int(header.get("ElementNumberOfChannels", 1))


def _geometry(header: Header, sizes: tuple[int, ...], where: str) -> Geometry | None:
    if len(sizes) != 3:
        return None
    spacing = _numbers(header, ("ElementSpacing", "ElementSize"), (1.0, 1.0, 1.0))
    directions = _numbers(header, ("TransformMatrix", "Rotation", "Orientation"), tuple(np.eye(3).ravel()))
    origin = _numbers(header, ("Offset", "Position", "Origin"), (0.0, 0.0, 0.0))
    rows = directions.reshape(3, 3) * spacing[:, None]
    width, height, depth = sizes
    return geometry_of(LPS_TO_RAS @ affine_of(rows, origin), (width, height, depth), where)


def _numbers(header: Header, names: tuple[str, ...], default: tuple[float, ...]) -> np.ndarray:
    text = next((header[name] for name in names if name in header), None)
    return np.array(default if text is None else [float(value) for value in text.split()], np.float64)


def _is_true(header: Header, *names: str, default: bool = False) -> bool:
    return next((header[name].lower() == "true" for name in names if name in header), default)

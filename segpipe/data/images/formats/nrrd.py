"""NRRD volumes and images (.nrrd, and .nhdr that holds its data); needs the package pynrrd (`segpipe[nrrd]`)."""

from __future__ import annotations

import io
import math
import zlib
from typing import Any

import numpy as np

from segpipe.data.images.bounds import RESTORE_FIX, Bounds, decoder_errors_as_data_errors
from segpipe.data.images.formats.requirement import require
from segpipe.data.images.formats.volume_array import LPS_TO_RAS, affine_of, geometry_of
from segpipe.data.images.geometry import CANONICAL, Geometry
from segpipe.errors import DataError

_MAX_HEADER = 1 << 20
_SPACES = {
    "left-posterior-superior": LPS_TO_RAS,
    "lps": LPS_TO_RAS,
    "right-anterior-superior": np.eye(4),
    "ras": np.eye(4),
    "left-anterior-superior": np.diag([-1.0, 1.0, 1.0, 1.0]),
    "las": np.diag([-1.0, 1.0, 1.0, 1.0]),
}
_SPATIAL_KINDS = ("domain", "space", "???", "none")


def is_nrrd(content: bytes) -> bool:
    """Return whether the bytes begin like a NRRD file."""
    return content[:7] == b"NRRD000"


def decode_nrrd(content: bytes, where: str, bounds: Bounds) -> tuple[np.ndarray, list[str]]:
    """Decode the values of a NRRD file.

    Args:
        content: the bytes of the file.
        where: the name of the file in errors.
        bounds: the limits for the file.

    Returns:
        (D, H, W, C), turned to RAS if the file states a space, or (H, W, C); in the stored type. And the conversions that were made.

    Raises:
        DataError: if the file is too large, truncated or damaged, or keeps its data in another file.
        MissingError: if pynrrd is not installed.
    """
    nrrd = require("nrrd", "nrrd", where)
    with decoder_errors_as_data_errors(where), io.BytesIO(content) as stream:
        header = nrrd.read_header(stream)
        sizes, channels_first = _axes(header, where)
        *depth, height, width, channels = _array_shape(sizes, channels_first)
        bounds.check(where, height, width, channels, depth[0] if depth else 1)
        if depth and not bounds.volumes:
            raise DataError("is a volume", where=where, expected="a 2D image", fix="save its slices as PNG")
        flat = _values(nrrd, header, content[stream.tell() :], math.prod(sizes), where)
    # the first axis changes fastest
    array = flat.reshape(sizes[::-1])
    array = array if channels_first else array[..., None]
    geometry = _geometry(header, sizes[1:] if channels_first else sizes, where)
    if geometry is None or not depth:
        return array, []
    return geometry.to_canonical(array), [f"turned from {geometry.orientation} to {CANONICAL}"] * geometry.is_turned


def nrrd_geometry(content: bytes, where: str) -> Geometry | None:
    """Read the geometry of a volume from its header; None for an image, and without a space or directions."""
    nrrd = require("nrrd", "nrrd", where)
    with decoder_errors_as_data_errors(where), io.BytesIO(content) as stream:
        header = nrrd.read_header(stream)
        sizes, channels_first = _axes(header, where)
        return _geometry(header, sizes[1:] if channels_first else sizes, where)


def _axes(header: Any, where: str) -> tuple[tuple[int, ...], bool]:
    """Return the sizes, the fastest axis first, and whether the first axis holds channels."""
    sizes = tuple(int(size) for size in header["sizes"])
    kinds = [str(kind).lower() for kind in header.get("kinds", ["domain"] * len(sizes))]
    channels_first = len(sizes) > 2 and kinds[0] not in _SPATIAL_KINDS
    spatial = len(sizes) - channels_first
    if spatial not in (2, 3) or any(kind not in _SPATIAL_KINDS for kind in kinds[channels_first:]) or min(sizes) < 1:
        raise DataError(
            "the axes do not form an image or a volume",
            where=where,
            found=f"{' x '.join(map(str, sizes))}, {', '.join(kinds)}",
            expected="width x height (x depth), and optionally channels as the first axis",
            fix="save one volume per file",
        )
    return sizes, channels_first


def _array_shape(sizes: tuple[int, ...], channels_first: bool) -> tuple[int, ...]:
    return sizes[::-1] if channels_first else (*sizes[::-1], 1)


def _values(nrrd: Any, header: Any, data: bytes, count: int, where: str) -> np.ndarray:
    """Return the values, flat. Compressed data are inflated only as far as the header announces."""
    if any(key in header for key in ("data file", "datafile", "line skip", "lineskip", "byte skip", "byteskip")):
        raise DataError("keeps its data in another file", where=where, fix="save header and data as one .nrrd file")
    dtype = nrrd.reader._determine_datatype(header)
    encoding = str(header["encoding"]).lower()
    size = count * dtype.itemsize
    if encoding in ("gzip", "gz"):
        data = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data, size)
    elif encoding != "raw":
        raise DataError(
            "unsupported encoding", where=where, found=encoding, expected="raw or gzip", fix="save it as gzip"
        )
    if dtype.kind not in "uif" or dtype.itemsize > 8 or len(data) < size:
        raise DataError(
            "cannot be decoded: cut short, or not numbers", where=where, found=f"{len(data):,} bytes of {dtype}",
            expected=f"{size:,}", fix=RESTORE_FIX,
        )  # fmt: skip
    return np.frombuffer(data, dtype, count)


def _geometry(header: Any, sizes: tuple[int, ...], where: str) -> Geometry | None:
    space = _SPACES.get(str(header.get("space", "")).lower())
    directions = header.get("space directions")
    if len(sizes) != 3 or space is None or directions is None:
        return None
    rows = np.asarray([row for row in np.asarray(directions, np.float64) if np.isfinite(row).all()])
    if rows.shape != (3, 3):
        return None
    origin = np.asarray(header.get("space origin", np.zeros(3)), np.float64)
    width, height, depth = sizes
    return geometry_of(space @ affine_of(rows, origin), (width, height, depth), where)

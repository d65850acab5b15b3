"""NIfTI volumes (.nii, .nii.gz); the format is described at https://nifti.nimh.nih.gov. Nothing is reoriented or resampled.

A gzipped file is inflated only as far as its header announces voxels, and only if the header is within the bounds. So a gzip bomb is
never unpacked.
"""

from __future__ import annotations

import gzip
import io
import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from segpipe.data.images.bounds import RESTORE_FIX, Bounds, decoder_errors_as_data_errors
from segpipe.errors import DataError

_GZIP = b"\x1f\x8b"
_MIN_OFFSET_BYTES = {348: 352, 540: 544}
"""The smallest offset of the voxels in the file, by the size of the header (NIfTI-1, NIfTI-2)."""

_MAX_OFFSET_BYTES = 64 << 20
_READ_BYTES = 1 << 20
_Stream = gzip.GzipFile | io.BytesIO
_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Millimetres per unit of length, by its code in the header: unknown (read as mm), metre, millimetre, micrometre."""


@dataclass(frozen=True)
class Geometry:
    """The position and orientation of a volume in the patient or specimen.

    Attributes:
        spacing: the size of a voxel in mm along (D, H, W), which is NIfTI's (k, j, i).
        orientation: the directions in which NIfTI's axes i, j, k point, for example "RAS" (right, anterior, superior).
        affine: the matrix from (i, j, k, 1) to mm, 4 x 4, row by row.
    """

    spacing: tuple[float, float, float]
    orientation: str
    affine: tuple[float, ...]

    def offset(self, other: Geometry, shape: tuple[int, ...]) -> float:
        """Compute how far apart two headers place the corners of a volume.

        Args:
            other: the other geometry.
            shape: (D, H, W), the size of both volumes.

        Returns:
            The largest distance along an axis, in voxels of this geometry.
        """
        affine, other_affine = (np.reshape(geometry.affine, (4, 4)) for geometry in (self, other))
        corners = np.transpose([[*corner, 1] for corner in itertools.product(*((0, edge - 1) for edge in shape[::-1]))])
        other_corners = np.linalg.lstsq(affine, other_affine @ corners, rcond=None)[0]
        return float(np.abs(other_corners - corners).max())


def is_nifti(content: bytes) -> bool:
    """Return whether the bytes begin like a NIfTI file, or like gzip, which no other supported image format uses."""
    return content[:2] == _GZIP or content[344:348] in (b"n+1\0", b"ni1\0") or content[4:8] in (b"n+2\0", b"ni2\0")


def decode_nifti(content: bytes, where: str, bounds: Bounds) -> tuple[np.ndarray, list[str]]:
    """Decode the voxels of a NIfTI file.

    Args:
        content: the bytes of the file.
        where: the name of the file in errors.
        bounds: the limits for the file.

    Returns:
        voxels: (D, H, W, C), in the stored type, or float32 if the header scales them. The fourth axis of NIfTI becomes the channels.
        notes: the conversions that were made.

    Raises:
        DataError: if the file is too large, truncated or damaged, or if it is not an image (complex or RGB voxels, five axes).
    """
    with decoder_errors_as_data_errors(where), _stream(content) as stream:
        header = _read_header(stream, where)
        channels, depth, height, width = _shape(header, where)
        bounds.check(where, height, width, channels, depth)
        dtype = header.get_data_dtype()
        if dtype.kind not in "uif" or dtype.itemsize > 8:
            raise DataError(
                "unsupported type of voxels",
                where=where,
                found=dtype,
                expected="integers or floats of up to 64 bits",
                fix="save each component as a channel (the fourth axis)",
            )
        _skip(stream, header, where)
        voxels = np.empty((channels, depth, height, width), dtype)
        _fill(stream, voxels, where)
        stream.read(1)  # gzip compares its checksum at the end of the data
        slope, intercept = header.get_slope_inter()
    notes = []
    if slope is not None and (slope, intercept) != (1.0, 0.0):
        notes.append(f"values scaled as the header says: {slope:g} x value + {intercept:g}")
        voxels = _scaled(voxels, slope, intercept)
    return np.ascontiguousarray(np.moveaxis(voxels, 0, -1)), notes


def nifti_geometry(content: bytes, where: str) -> Geometry:
    """Read the geometry from the header.

    Args:
        content: the bytes of the file.
        where: the name of the file in errors.

    Raises:
        DataError: if the header is damaged or states no voxel size.
    """
    from nibabel.orientations import aff2axcodes

    with decoder_errors_as_data_errors(where), _stream(content) as stream:
        header = _read_header(stream, where)
        _shape(header, where)
        scale = _MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
        affine = np.diag([scale, scale, scale, 1.0]) @ np.asarray(header.get_best_affine(), np.float64)
        spacing = [float(v) * scale for v in header["pixdim"][1:4]]
        if not (all(math.isfinite(v) and v > 0 for v in spacing) and np.isfinite(affine).all()):
            raise DataError(
                "the header states no voxel size",
                where=where,
                found=" x ".join(f"{v:g}" for v in spacing),
                expected="three positive numbers and a finite affine",
                fix="write the header again with the values of the scanner",
            )
        codes = aff2axcodes(affine)
    return Geometry(
        (_shortest_decimal(spacing[2]), _shortest_decimal(spacing[1]), _shortest_decimal(spacing[0])),
        "".join(code or "?" for code in codes),
        tuple(affine.ravel().tolist()),
    )


def encode_nifti(voxels: np.ndarray, geometry: Geometry | None = None) -> bytes:
    """Encode a volume as a gzipped NIfTI file. The same voxels give the same bytes.

    Args:
        voxels: (D, H, W) or (D, H, W, C), uint8, uint16 or float32.
        geometry: position and orientation of the volume; by default voxels are cubes of 1 mm.

    Returns:
        The bytes of the .nii.gz file.
    """
    import nibabel

    affine = np.eye(4) if geometry is None else np.array(geometry.affine).reshape(4, 4)
    image = nibabel.Nifti1Image(voxels.transpose(2, 1, 0, *range(3, voxels.ndim)), affine)
    if geometry is not None:
        image.header.set_zooms((*reversed(geometry.spacing), *[1.0] * (voxels.ndim - 3)))
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)


def _shortest_decimal(value: float) -> float:
    """Return a number stored in 32 bits as its shortest decimal form: 0.3, not 0.30000001192092896."""
    return float(str(np.float32(value)))


def _stream(content: bytes) -> _Stream:
    stream = io.BytesIO(content)
    return gzip.GzipFile(fileobj=stream) if content[:2] == _GZIP else stream


def _read_header(stream: _Stream, where: str) -> Any:
    """Read the header as an object of nibabel. The stream is then at the first byte after the header."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    start = stream.read(4)
    sizes = (int.from_bytes(start, "little"), int.from_bytes(start, "big"))
    size = next((size for size in sizes if size in _MIN_OFFSET_BYTES), None)
    if size is None:
        raise DataError(
            "is not a NIfTI volume", where=where, expected="a header of 348 or 540 bytes", fix="convert it to .nii.gz"
        )
    block = start + stream.read(size - 4)
    if len(block) < size:
        raise DataError("cannot be decoded: cut short in the header", where=where, fix=RESTORE_FIX)
    header = (Nifti1Header if size == 348 else Nifti2Header)(block, check=False)
    if bytes(header["magic"])[:2] != b"n+":
        raise DataError(
            "is a header without voxel data",
            where=where,
            found="one half of a pair of .hdr and .img files",
            fix="save both as one .nii.gz file",
        )
    return header


def _shape(header: Any, where: str) -> tuple[int, int, int, int]:
    """Return (channels, depth, height, width)."""
    axes = int(header["dim"][0])
    sizes = [int(n) for n in header["dim"][1 : axes + 1]]
    if not 2 <= axes <= 7 or min(sizes) < 1 or sum(n > 1 for n in sizes[3:]) > 1:
        raise DataError(
            "the axes do not form a volume",
            where=where,
            found=" x ".join(map(str, sizes)) or "none",
            expected="width x height x depth, and optionally channels",
            fix="save one volume per file",
        )
    width, height, depth = (*sizes, 1)[:3]
    return math.prod(sizes[3:]), depth, height, width


def _skip(stream: _Stream, header: Any, where: str) -> None:
    """Skip the extensions between the header and the voxels."""
    size = int(header["sizeof_hdr"])
    offset = int(header.get_data_offset())
    if not _MIN_OFFSET_BYTES[size] <= offset <= _MAX_OFFSET_BYTES:
        raise DataError(
            "the header gives an invalid position of the voxels", where=where, found=f"offset {offset}", fix=RESTORE_FIX
        )
    if len(stream.read(offset - size)) < offset - size:
        raise DataError("cannot be decoded: cut short before the voxels", where=where, fix=RESTORE_FIX)


def _fill(stream: _Stream, voxels: np.ndarray, where: str) -> None:
    view = voxels.reshape(-1).view(np.uint8).data
    filled = 0
    while filled < len(view):
        count = stream.readinto(view[filled : filled + _READ_BYTES])
        if not count:
            raise DataError(
                "cannot be decoded: cut short",
                where=where,
                found=f"{filled:,} bytes of voxels",
                expected=f"{len(view):,}",
                fix=RESTORE_FIX,
            )
        filled += count


def _scaled(voxels: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """Compute slope * voxels + intercept as float32. It is computed in 64 bits, one plane at a time."""
    scaled = np.empty(voxels.shape, np.float32)
    for index in np.ndindex(voxels.shape[:2]):
        scaled[index] = voxels[index].astype(np.float64) * slope + intercept
    return scaled

"""NIfTI volumes (.nii, .nii.gz); the format is described at https://nifti.nimh.nih.gov.

Volumes are turned to RAS (`segpipe.data.images.geometry`) and never resampled.

A gzipped file is inflated only as far as its header announces voxels, and only if the header is within the bounds. So a gzip bomb is
never unpacked.
"""

from __future__ import annotations

import gzip
import io
import math
from typing import Any

import numpy as np

from segpipe.data.images.bounds import RESTORE_FIX, Bounds, decoder_errors_as_data_errors
from segpipe.data.images.geometry import (
    CANONICAL,
    SIZE_TOLERANCE,
    Geometry,
    check_lengths,
    oriented_geometry,
    shortest_decimal,
)
from segpipe.errors import DataError

_GZIP = b"\x1f\x8b"
_MIN_OFFSET_BYTES = {348: 352, 540: 544}
"""The smallest offset of the voxels in the file, by the size of the header (NIfTI-1, NIfTI-2)."""

_MAX_OFFSET_BYTES = 64 << 20
_READ_BYTES = 1 << 20
_Stream = gzip.GzipFile | io.BytesIO
_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Millimetres per unit of length, by its code in the header: unknown (read as mm), metre, millimetre, micrometre."""
_FIELDS = {
    "pixdim": 4,
    "qform_code": 1,
    "sform_code": 1,
    "quatern_b": 1,
    "quatern_c": 1,
    "quatern_d": 1,
    "qoffset_x": 1,
    "qoffset_y": 1,
    "qoffset_z": 1,
    "srow_x": 4,
    "srow_y": 4,
    "srow_z": 4,
    "xyzt_units": 1,
}
"""The fields that state the position of a volume, and how many of their values do."""


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
        voxels: (D, H, W, C), turned to RAS, in the stored type, or float32 if the header scales them. The fourth axis of NIfTI becomes
            the channels.
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
        geometry = _geometry(header, where)
        notes = _size_notes(header, geometry)
    if slope is not None and (slope, intercept) != (1.0, 0.0):
        notes.append(f"values scaled as the header says: {slope:g} x value + {intercept:g}")
        voxels = _scaled(voxels, slope, intercept)
    return geometry.to_canonical(np.ascontiguousarray(np.moveaxis(voxels, 0, -1))), notes


def nifti_geometry(content: bytes, where: str) -> Geometry:
    """Read the geometry from the header.

    The sform decides if the header has one, else the qform. A header with neither states only voxel sizes.

    Args:
        content: the bytes of the file.
        where: the name of the file in errors.

    Raises:
        DataError: if the header is damaged or states no voxel size, or if qform and sform state different orientations.
    """
    with decoder_errors_as_data_errors(where), _stream(content) as stream:
        return _geometry(_read_header(stream, where), where)


def encode_nifti(voxels: np.ndarray, geometry: Geometry | None = None) -> bytes:
    """Encode a volume as a gzipped NIfTI file, in the order of the file that `geometry` comes from. The same voxels give the same bytes.

    Args:
        voxels: (D, H, W) or (D, H, W, C) in the order of a decoded volume; uint8, uint16 or float32.
        geometry: position and orientation of the volume; by default voxels are cubes of 1 mm in RAS. The fields of its NIfTI header
            (qform, sform, their codes, voxel size and unit) are written unchanged.

    Returns:
        The bytes of the .nii.gz file.
    """
    import nibabel

    affine, stored = np.eye(4), voxels
    if geometry is not None:
        affine = np.array(geometry.stored_affine or geometry.affine).reshape(4, 4)
        stored = geometry.to_stored(voxels)
    image = nibabel.Nifti1Image(stored.transpose(2, 1, 0, *range(3, voxels.ndim)), affine)
    header = image.header
    if geometry is not None and not geometry.header:
        header.set_zooms((*reversed(geometry.as_stored().spacing), *[1.0] * (voxels.ndim - 3)))
    header.set_xyzt_units("mm")
    if geometry is None or not geometry.header:
        return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)
    for name, values in geometry.header:
        if name == "pixdim":
            header["pixdim"][: len(values)] = values
        else:
            header[name] = values if len(values) > 1 else values[0]
    # an image would write its affine as sform again
    stream = io.BytesIO()
    header.write_to(stream)
    stream.write(b"\0" * (int(header.get_data_offset()) - stream.tell()))
    stream.write(np.asarray(image.dataobj).astype(header.get_data_dtype(), copy=False).tobytes("F"))
    return gzip.compress(stream.getvalue(), compresslevel=6, mtime=0)


def _geometry(header: Any, where: str) -> Geometry:
    """Return the geometry that a header of nibabel states."""
    _, depth, height, width = _shape(header, where)
    scale = _MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    to_mm = np.diag([scale, scale, scale, 1.0])
    fields = tuple((name, tuple(np.ravel(header[name]).tolist()[: _FIELDS[name]])) for name in _FIELDS)
    has_sform, has_qform = int(header["sform_code"]) > 0, int(header["qform_code"]) > 0
    pixdim = np.abs(np.asarray(header["pixdim"][1:4], np.float64)) * scale
    affine = to_mm @ np.asarray(header.get_best_affine(), np.float64)
    check_lengths(pixdim, affine, where)
    if not has_sform and not has_qform:
        spacing = shortest_decimal(pixdim[2]), shortest_decimal(pixdim[1]), shortest_decimal(pixdim[0])
        return Geometry(spacing, None, tuple(affine.ravel().tolist()), header=fields)
    if has_sform and has_qform:
        _check_forms_agree(header, where)
    return oriented_geometry(affine, (width, height, depth), where, fields, pixdim)


def _check_forms_agree(header: Any, where: str) -> None:
    """Raise DataError if qform and sform state different directions: programs disagree on which one they read."""
    from nibabel.orientations import aff2axcodes

    qform, sform = (aff2axcodes(form) for form in (header.get_qform(), header.get_sform()))
    if qform != sform:
        raise DataError(
            "qform and sform state different orientations",
            where=where,
            found=f"{_codes(qform)} in the qform, {_codes(sform)} in the sform",
            expected="the same orientation",
            fix="correct the wrong one, or set its code to 0",
        )


def _codes(axes: tuple[str | None, ...]) -> str:
    return "".join(code or "?" for code in axes)


def _size_notes(header: Any, geometry: Geometry) -> list[str]:
    """Return the notes about the geometry: another order of voxels, and voxel sizes that differ from the affine."""
    notes = []
    if geometry.is_turned:
        notes.append(f"turned from {geometry.orientation} to {CANONICAL}")
    scale = _MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    pixdim = np.abs(np.asarray(header["pixdim"][1:4], np.float64)) * scale
    spacing = np.array(geometry.as_stored().spacing[::-1])
    if not np.allclose(pixdim, spacing, rtol=SIZE_TOLERANCE):
        stated, used = (" x ".join(f"{shortest_decimal(v):g}" for v in sizes) for sizes in (pixdim, spacing))
        notes.append(f"voxels of {used} mm as the affine says, not {stated} mm as pixdim says")
    return notes


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

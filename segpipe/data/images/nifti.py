"""NIfTI volumes (.nii, .nii.gz), as https://nifti.nimh.nih.gov describes them. Nothing is reoriented or resampled.

A gzipped file is inflated only as far as its header says that there are voxels, and that only where the header keeps the bounds:
a gzip bomb is never unpacked.
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
_HEADER_BYTES = {348: 352, 540: 544}
"""Where the voxels begin at the earliest, by the size of the header (NIfTI-1, NIfTI-2)."""

_MAX_OFFSET = 64 << 20
_Stream = gzip.GzipFile | io.BytesIO
_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Millimetres in the header's unit of length: unknown (taken for mm), metre, millimetre, micrometre."""


@dataclass(frozen=True)
class Geometry:
    """Where a volume lies in its patient or specimen.

    spacing: voxel size in mm along (D, H, W), which is NIfTI's (k, j, i).
    orientation: the ends that NIfTI's axes i, j, k point to, "RAS" for instance.
    affine: from (i, j, k, 1) to mm, 4 x 4, row by row.
    """

    spacing: tuple[float, float, float]
    orientation: str
    affine: tuple[float, ...]

    def offset(self, other: Geometry, shape: tuple[int, ...]) -> float:
        """How far apart, in voxels of this one, two headers put the corners of a volume (D, H, W); the largest distance along an axis."""
        mine, theirs = (np.reshape(geometry.affine, (4, 4)) for geometry in (self, other))
        corners = [[*corner, 1] for corner in itertools.product(*((0, edge - 1) for edge in shape[::-1]))]
        places = np.linalg.lstsq(mine, theirs @ np.transpose(corners), rcond=None)[0]
        return float(np.abs(places - np.transpose(corners)).max())


def is_nifti(content: bytes) -> bool:
    """Whether the bytes begin as NIfTI does, or as gzip, in which no other image comes."""
    return content[:2] == _GZIP or content[344:348] in (b"n+1\0", b"ni1\0") or content[4:8] in (b"n+2\0", b"ni2\0")


def decode_nifti(content: bytes, where: str, bounds: Bounds) -> tuple[np.ndarray, list[str]]:
    """(Z, Y, X, T as channels), in the dtype that is stored, or float32 where the header scales it; and what was converted.

    Raises DataError for a file that is too large, cut short, broken, or of a kind that no image is (complex, RGB, 5 axes).
    """
    with decoder_errors_as_data_errors(where), _stream(content) as stream:
        header = _read_header(stream, where)
        channels, depth, height, width = _shape(header, where)
        bounds.check(where, height, width, channels, depth)
        dtype = header.get_data_dtype()
        if dtype.kind not in "uif" or dtype.itemsize > 8:
            raise DataError(
                "voxels of this kind are not read", where=where, found=dtype, expected="whole numbers or floats",
                fix="save each component as a channel (the fourth axis)",
            )
        _skip(stream, header, where)
        voxels = np.empty((channels, depth, height, width), dtype)
        _fill(stream, voxels, where)
        stream.read(1)  # at its end gzip compares the checksum
        slope, intercept = header.get_slope_inter()
    notes = []
    if slope is not None and (slope, intercept) != (1.0, 0.0):
        notes.append(f"values scaled as the header says: {slope:g} x value + {intercept:g}")
        voxels = _scaled(voxels, slope, intercept)
    return np.ascontiguousarray(np.moveaxis(voxels, 0, -1)), notes


def nifti_geometry(content: bytes, where: str) -> Geometry:
    """The geometry, from the header alone. Raises DataError for a header that is broken or gives no voxel size."""
    from nibabel.orientations import aff2axcodes

    with decoder_errors_as_data_errors(where), _stream(content) as stream:
        header = _read_header(stream, where)
        _shape(header, where)
        scale = _MM.get(int(header["xyzt_units"]) & 7, 1.0)
        affine = np.diag([scale, scale, scale, 1.0]) @ np.asarray(header.get_best_affine(), np.float64)
        spacing = [float(v) * scale for v in header["pixdim"][1:4]]
        if not (all(math.isfinite(v) and v > 0 for v in spacing) and np.isfinite(affine).all()):
            raise DataError(
                "the header gives no voxel size", where=where, found=" x ".join(f"{v:g}" for v in spacing),
                expected="three positive numbers and a finite affine", fix="write the header anew with the scanner's values",
            )
        codes = aff2axcodes(affine)
    return Geometry(
        (_exact(spacing[2]), _exact(spacing[1]), _exact(spacing[0])),
        "".join(code or "?" for code in codes),
        tuple(affine.ravel().tolist()),
    )


def encode_nifti(voxels: np.ndarray, geometry: Geometry | None = None) -> bytes:
    """(D, H, W) or (D, H, W, C), uint8, uint16 or float32 -> the bytes of a .nii.gz; the same voxels give the same bytes.

    Without a geometry voxels are cubes of 1 mm.
    """
    import nibabel

    affine = np.eye(4) if geometry is None else np.array(geometry.affine).reshape(4, 4)
    image = nibabel.Nifti1Image(voxels.transpose(2, 1, 0, *range(3, voxels.ndim)), affine)
    if geometry is not None:
        image.header.set_zooms((*reversed(geometry.spacing), *[1.0] * (voxels.ndim - 3)))
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)


def _exact(value: float) -> float:
    """A number that was written in 32 bits, by its shortest decimal form: 0.3, not 0.30000001192092896."""
    return float(str(np.float32(value)))


def _stream(content: bytes) -> _Stream:
    plain = io.BytesIO(content)
    return gzip.GzipFile(fileobj=plain) if content[:2] == _GZIP else plain


def _read_header(stream: _Stream, where: str) -> Any:
    """nibabel's header object; the stream then stands behind the header."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    start = stream.read(4)
    size = next((s for s in _HEADER_BYTES for order in ("little", "big") if start == s.to_bytes(4, order)), None)  # type: ignore[arg-type]
    if size is None:
        raise DataError(
            "is no NIfTI volume", where=where, expected="a header of 348 or 540 bytes", fix="convert it to .nii.gz"
        )
    block = start + stream.read(size - 4)
    if len(block) < size:
        raise DataError("cannot be decoded: cut short in its header", where=where, fix=RESTORE_FIX)
    header = (Nifti1Header if size == 348 else Nifti2Header)(block, check=False)
    if bytes(header["magic"])[:2] != b"n+":
        raise DataError(
            "is a header without its voxels", where=where, found="half of a pair .hdr and .img",
            fix="save both as one .nii.gz file",
        )
    return header


def _shape(header: Any, where: str) -> tuple[int, int, int, int]:
    """(channels, depth, height, width)."""
    axes = int(header["dim"][0])
    sizes = [int(n) for n in header["dim"][1 : axes + 1]]
    if not 2 <= axes <= 7 or min(sizes) < 1 or sum(n > 1 for n in sizes[3:]) > 1:
        raise DataError(
            "axes that make no volume", where=where, found=" x ".join(map(str, sizes)) or "none",
            expected="width x height x depth, and channels where it has them", fix="save one volume a file",
        )
    width, height, depth = (*sizes, 1)[:3]
    return math.prod(sizes[3:]), depth, height, width


def _skip(stream: _Stream, header: Any, where: str) -> None:
    """Pass over the extensions between header and voxels."""
    size = int(header["sizeof_hdr"])
    offset = int(header.get_data_offset())
    if not _HEADER_BYTES[size] <= offset <= _MAX_OFFSET:
        raise DataError("the voxels begin nowhere", where=where, found=f"offset {offset}", fix=RESTORE_FIX)
    if len(stream.read(offset - size)) < offset - size:
        raise DataError("cannot be decoded: cut short before its voxels", where=where, fix=RESTORE_FIX)


def _fill(stream: _Stream, voxels: np.ndarray, where: str) -> None:
    view = voxels.reshape(-1).view(np.uint8).data
    filled = 0
    while filled < len(view):
        count = stream.readinto(view[filled : filled + (1 << 20)])
        if not count:
            raise DataError(
                "cannot be decoded: cut short", where=where, found=f"{filled:,} bytes of voxels",
                expected=f"{len(view):,}", fix=RESTORE_FIX,
            )
        filled += count


def _scaled(voxels: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """slope * voxels + intercept, reckoned in 64 bits plane by plane, kept in 32."""
    scaled = np.empty(voxels.shape, np.float32)
    for index in np.ndindex(voxels.shape[:2]):
        scaled[index] = voxels[index].astype(np.float64) * slope + intercept
    return scaled

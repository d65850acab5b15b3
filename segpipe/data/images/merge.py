"""Merge channels that are stored in separate files into one image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segpipe.config import DataParams
from segpipe.data.images.bounds import Bounds
from segpipe.data.images.decode import decode_geometry, decode_image
from segpipe.data.images.encode import encode_tiff
from segpipe.data.images.formats.detached import read_image_file
from segpipe.data.images.geometry import Geometry
from segpipe.data.images.nifti import encode_nifti
from segpipe.errors import DataError

_TOLERANCE_MM = 1e-3
"""Largest difference of the affines of two channels, in mm: programs store them in 32 bits."""


def merge_channels(paths: Sequence[Path], limits: DataParams) -> bytes:
    """Merge the images of several files into the channels of one image.

    Args:
        paths: the files, in the order of the channels.
        limits: how large files may be, and how pages of TIFF files are read.

    Returns:
        The bytes of a TIFF file, or of a gzipped NIfTI file for volumes. Its type can represent the values of all files.

    Raises:
        DataError: if a file cannot be read, or if sizes, voxel sizes or positions differ.
    """
    arrays: list[np.ndarray] = []
    first: Geometry | None = None
    for path in paths:
        content = read_image_file(path, limits)
        array, geometry = decode_image(content, str(path), limits), decode_geometry(content, str(path))
        if not arrays:
            first = geometry
        elif array.shape[:-1] != arrays[0].shape[:-1] or not _same_geometry(geometry, first):
            raise DataError(
                "the geometry differs from that of the other channels",
                where=path,
                found=_geometry_text(array, geometry),
                expected=f"{_geometry_text(arrays[0], first)}, as in {paths[0].name}",
                fix="resample the channels to one grid",
            )
        arrays.append(array)
        *depth, height, width, _ = array.shape
        channels = sum(a.shape[-1] for a in arrays)
        Bounds.from_limits(limits).check(str(path), height, width, channels, depth[0] if depth else 1)
    merged = np.concatenate(arrays, axis=-1)
    if merged.ndim == 4:
        return encode_nifti(merged, first)
    return encode_tiff(merged)


def _same_geometry(a: Geometry | None, b: Geometry | None) -> bool:
    if a is None or b is None:
        return a is b
    return bool(np.allclose(a.affine, b.affine, atol=_TOLERANCE_MM))


def _geometry_text(array: np.ndarray, geometry: Geometry | None) -> str:
    size = " x ".join(map(str, reversed(array.shape[:-1])))
    if geometry is None:
        return size
    origin = ", ".join(f"{v:g}" for v in np.reshape(geometry.affine, (4, 4))[:3, 3])
    spacing = " x ".join(f"{v:g}" for v in reversed(geometry.spacing))
    return f"{size} of {spacing} mm, {geometry.orientation}, at {origin}"

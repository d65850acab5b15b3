"""Channels that lie in files of their own, as one image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segpipe.config import DataParams
from segpipe.data.images.bounds import Bounds, max_bytes
from segpipe.data.images.decode import decode_geometry, decode_image
from segpipe.data.images.encode import encode_tiff
from segpipe.data.images.nifti import Geometry, encode_nifti
from segpipe.errors import DataError
from segpipe.files import read_bytes

_TOLERANCE = 1e-3
"""How far affines of one case may differ in mm: programs write them in 32 bits."""


def merge_channels(paths: Sequence[Path], limits: DataParams) -> bytes:
    """The images of some files as the channels of one, in their order: of pictures a TIFF file, of volumes a gzipped NIfTI file.

    The dtype is the one that holds all of them. Raises DataError where a file cannot be read, or where their sizes, voxel sizes or
    positions differ.
    """
    arrays: list[np.ndarray] = []
    first: Geometry | None = None
    for path in paths:
        content = read_bytes(path, max_bytes(limits))
        array, geometry = decode_image(content, str(path), limits), decode_geometry(content, str(path))
        if not arrays:
            first = geometry
        elif array.shape[:-1] != arrays[0].shape[:-1] or not _same_place(geometry, first):
            raise DataError(
                "does not lie where the other channels do",
                where=path,
                found=_place(array, geometry),
                expected=f"{_place(arrays[0], first)}, as {paths[0].name}",
                fix="resample the channels to one grid",
            )
        arrays.append(array)
        *depth, height, width, _ = array.shape
        channels = sum(a.shape[-1] for a in arrays)
        Bounds.of(limits).check(str(path), height, width, channels, depth[0] if depth else 1)
    merged = np.concatenate(arrays, axis=-1)
    if merged.ndim == 4:
        return encode_nifti(merged, first)
    return encode_tiff(merged)


def _same_place(a: Geometry | None, b: Geometry | None) -> bool:
    if a is None or b is None:
        return a is b
    return bool(np.allclose(a.affine, b.affine, atol=_TOLERANCE))


def _place(array: np.ndarray, geometry: Geometry | None) -> str:
    size = " x ".join(map(str, reversed(array.shape[:-1])))
    if geometry is None:
        return size
    origin = ", ".join(f"{v:g}" for v in np.reshape(geometry.affine, (4, 4))[:3, 3])
    spacing = " x ".join(f"{v:g}" for v in reversed(geometry.spacing))
    return f"{size} of {spacing} mm, {geometry.orientation}, at {origin}"

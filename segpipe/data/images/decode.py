"""From bytes of any format to arrays that segpipe computes with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from segpipe.config import DataParams
from segpipe.data.images.bounds import RESTORE_FIX, Bounds, max_bytes
from segpipe.data.images.nifti import Geometry, decode_nifti, is_nifti, nifti_geometry
from segpipe.data.images.raster import decode_raster, raster_size
from segpipe.data.images.tiff import decode_tiff, is_tiff
from segpipe.errors import DataError
from segpipe.files import read_bytes

Mask = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

_EXACT = 1 << 24
"""Whole numbers up to here are exact as 32-bit floats."""
_BAND = 1 << 20


def read_image(path: Path, limits: DataParams) -> np.ndarray:
    """The pixels of an image file: (H, W, C), RGB order where there are colours, or a volume's voxels: (D, H, W, C).

    uint8 and uint16 as stored; everything else float32. Alpha is dropped, the EXIF rotation applied, palettes expanded, CMYK
    converted. Raises DataError for a file that is too large, cut short, broken or no image.
    """
    return decode_image(read_bytes(path, max_bytes(limits)), str(path), limits)


def decode_image(content: bytes, where: str, limits: DataParams | float) -> np.ndarray:
    """As `read_image`, from bytes; `where` names them in the error. With a plain number of megapixels (an upload's bound, say) for
    `limits`, single pictures only: no volumes, no pages.
    """
    return decode_image_with_notes(content, where, limits)[0]


def decode_image_with_notes(content: bytes, where: str, limits: DataParams | float) -> tuple[np.ndarray, list[str]]:
    """As `decode_image`, with what was converted, in words: "alpha channel dropped", "3 pages read as channels"."""
    array, notes = _decode(content, where, Bounds.of(limits), indices=False)
    return _computable(array, where, notes), notes


def read_size(path: Path, limits: DataParams) -> tuple[int, ...]:
    """The shape of `read_image` without channels, (H, W) or (D, H, W), from the header alone where the kind of file allows that."""
    content = read_bytes(path, max_bytes(limits))
    if not content or is_nifti(content) or is_tiff(content):
        return decode_image(content, str(path), limits).shape[:-1]
    return raster_size(content, str(path), Bounds.of(limits))


def read_mask(path: Path, limits: DataParams) -> Mask:
    """The file values of a mask: (H, W) or, for a volume, (D, H, W), uint8 or uint16. A palette mask gives its indices.

    Raises DataError as `read_image` does, and for a mask in colours, with fractions or values that are no uint16.
    """
    return decode_mask(read_bytes(path, max_bytes(limits)), str(path), limits)


def decode_mask(content: bytes, where: str, limits: DataParams | float) -> Mask:
    """As `read_mask`, from bytes; `where` names them in the error."""
    return decode_mask_with_notes(content, where, limits)[0]


def decode_mask_with_notes(content: bytes, where: str, limits: DataParams | float) -> tuple[Mask, list[str]]:
    """As `decode_mask`, with what was converted, in words."""
    array, notes = _decode(content, where, Bounds.of(limits), indices=True)
    if any((array[..., c] != array[..., 0]).any() for c in range(1, array.shape[-1])):
        raise DataError(
            "the mask is in colours", where=where, found="channels that differ", expected="one channel of class values",
            fix="save masks as 8-bit grey or palette PNG whose pixel values are the classes",
        )
    mask = np.ascontiguousarray(array[..., 0])
    if mask.dtype in (np.uint8, np.uint16):
        return mask, notes
    if (mask != np.round(mask)).any() or mask.min() < 0 or mask.max() > 65535:  # NaN differs from itself
        raise DataError(
            "the mask's values are no class values", where=where, found=f"{mask.dtype}, {mask.min()} to {mask.max()}",
            expected="whole numbers from 0 to 65535", fix="save masks as 8- or 16-bit grey PNG",
        )
    return mask.astype(np.uint16), notes


def decode_geometry(content: bytes, where: str) -> Geometry | None:
    """Spacing and orientation of a volume, from its header; None for files that say nothing of it."""
    return nifti_geometry(content, where) if is_nifti(content) else None


def _decode(content: bytes, where: str, bounds: Bounds, indices: bool) -> tuple[np.ndarray, list[str]]:
    if not content:
        raise DataError("the file is empty", where=where, fix=RESTORE_FIX)
    if is_nifti(content):
        if not bounds.volumes:
            raise DataError("holds a volume", where=where, expected="one picture", fix="save its slices as PNG")
        array, notes = decode_nifti(content, where, bounds)
    elif is_tiff(content):
        array, notes = decode_tiff(content, where, bounds, indices)
    else:
        array, notes = decode_raster(content, where, bounds, indices)
    if not array.dtype.isnative:
        array = array.byteswap(inplace=array.flags.writeable).view(array.dtype.newbyteorder("="))
    return array, notes


def _computable(array: np.ndarray, where: str, notes: list[str]) -> np.ndarray:
    """The array as uint8, uint16 or float32, by its dtype and not by its values; DataError where it holds NaN or infinity."""
    if array.dtype in (np.uint8, np.uint16):
        return array
    if array.dtype.kind in "iu" and array.itemsize > 2 and max(-int(array.min()), int(array.max())) > _EXACT:
        notes.append(f"whole numbers above {_EXACT:,} rounded to 32-bit floats")
    if array.dtype == np.float64:
        notes.append("64-bit floats rounded to 32 bits")
    return _as_floats(array, where)


def _as_floats(array: np.ndarray, where: str) -> npt.NDArray[np.float32]:
    """32-bit floats, by bands, and where `array` may be written and is as large, in its own memory; DataError for NaN or infinity."""
    flat = array.reshape(-1)
    if flat.dtype == np.float32:
        floats = flat
    elif flat.flags.writeable and flat.itemsize >= 4:
        floats = flat.view(np.float32)[: flat.size]  # never ahead of what is read
    else:
        floats = np.empty(flat.size, np.float32)
    for start in range(0, flat.size, _BAND):
        band = slice(start, start + _BAND)
        with np.errstate(over="ignore"):
            made = flat[band].astype(np.float32, copy=False)
        if not np.isfinite(made).all():
            raise DataError(
                "holds pixels that are no numbers (NaN or infinity)", where=where, fix="replace them by a value before import",
            )
        if floats is not flat:
            floats[band] = made
    return floats.reshape(array.shape)

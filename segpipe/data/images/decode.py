"""Decode image, mask and volume files of any supported format to arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from segpipe.config import DataParams
from segpipe.data.images.arrays import decode_numpy, is_numpy
from segpipe.data.images.bounds import RESTORE_FIX, Bounds
from segpipe.data.images.formats.class_planes import classes_of_planes
from segpipe.data.images.formats.detached import read_image_file
from segpipe.data.images.formats.geotiff import nodata_pixels, without_nodata
from segpipe.data.images.formats.kinds import kind_of
from segpipe.data.images.geometry import Geometry, align_mask
from segpipe.data.images.nifti import decode_nifti, is_nifti, nifti_geometry
from segpipe.data.images.raster import decode_raster, raster_orientation, raster_size
from segpipe.data.images.tiff import decode_tiff, is_tiff, tiff_orientation, tiff_size
from segpipe.errors import DataError

Mask = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

_MAX_EXACT_FLOAT32 = 1 << 24
"""The largest number up to which all integers are exact as 32-bit floats."""
_BAND_PIXELS = 1 << 20


def read_image(path: Path, limits: DataParams) -> np.ndarray:
    """Read and decode an image or volume file.

    Args:
        path: the file.
        limits: how large it may be, and how pages of a TIFF file are read.

    Returns:
        (H, W, C), RGB if the file has colours, or (D, H, W, C) for a volume. uint8 and uint16 values as stored, all other types as
        float32. Alpha is dropped, the EXIF orientation applied, palettes are expanded and CMYK is converted.

    Raises:
        DataError: if the file is too large, truncated, damaged or not an image.
    """
    return decode_image(read_image_file(path, limits), str(path), limits)


def decode_image(content: bytes, where: str, limits: DataParams | float) -> np.ndarray:
    """Decode the bytes of an image or volume file.

    Args:
        content: the bytes of the file.
        where: the name of the file in errors.
        limits: how large it may be, and how pages of a TIFF file are read. A plain number of megapixels (the limit of an upload, for
            example) allows only single 2D images.

    Returns:
        The array that `read_image` returns.

    Raises:
        DataError: as for `read_image`.
    """
    return decode_image_with_notes(content, where, limits)[0]


def decode_image_with_notes(content: bytes, where: str, limits: DataParams | float) -> tuple[np.ndarray, list[str]]:
    """Decode an image as `decode_image` does, and report conversions: "alpha channel dropped", "3 pages read as channels"."""
    return decode_image_and_nodata(content, where, limits)[:2]


def decode_image_and_nodata(
    content: bytes, where: str, limits: DataParams | float
) -> tuple[np.ndarray, list[str], npt.NDArray[np.bool_] | None]:
    """Decode an image as `decode_image_with_notes` does; also return which pixels have no data, (H, W), or None if all have."""
    array, notes = _decode(content, where, Bounds.from_limits(limits), indices=False)
    missing = nodata_pixels(array, content, where)
    if missing is not None:
        array, nodata_notes = without_nodata(array, content, where)
        notes += nodata_notes
    return _to_supported_type(array, where, notes), notes, missing


def read_size(path: Path, limits: DataParams) -> tuple[int, ...]:
    """Read the size of an image, (H, W), or volume, (D, H, W); from the header alone if the format allows it."""
    content = read_image_file(path, limits)
    if is_tiff(content) and (size := tiff_size(content, str(path), Bounds.from_limits(limits))) is not None:
        return size
    if not content or is_nifti(content) or is_tiff(content) or is_numpy(content) or kind_of(content):
        return decode_image(content, str(path), limits).shape[:-1]
    return raster_size(content, str(path), Bounds.from_limits(limits))


def decode_orientation(content: bytes, where: str, limits: DataParams | float) -> tuple[int, tuple[int, int]]:
    """Return the orientation of an image file (1 is upright) and its stored height and width, from its header.

    The orientation is the EXIF or TIFF tag 274. Files of kinds that have none give 1 and (0, 0).

    Raises:
        DataError: the file is too large, or not an image.
    """
    if not content or is_nifti(content) or is_numpy(content) or kind_of(content) is not None:
        return 1, (0, 0)
    if is_tiff(content):
        return tiff_orientation(content, where)
    return raster_orientation(content, where, Bounds.from_limits(limits))


def read_mask(path: Path, limits: DataParams) -> Mask:
    """Read and decode a mask file.

    Args:
        path: the file.
        limits: how large it may be, and how pages of a TIFF file are read.

    Returns:
        The stored values, (H, W) or, for a volume, (D, H, W); uint8 or uint16. A palette image gives its indices.

    Raises:
        DataError: as for `read_image`, and if the mask has different colour channels, or values that are not integers 0..65535.
    """
    return decode_mask(read_image_file(path, limits), str(path), limits)


def read_aligned_mask(path: Path, image: Path, limits: DataParams) -> Mask:
    """Read a mask, as `read_mask` does, in the order of voxels of its decoded image (`segpipe.data.images.geometry.align_mask`).

    Args:
        path: the mask.
        image: the file of its image, of which only the header is used.
        limits: how large the files may be, and how pages of TIFF files are read.

    Raises:
        DataError: as for `read_mask`, and if only one of both states its orientation and that matters.
    """
    content = read_image_file(path, limits)
    mask = decode_mask(content, str(path), limits)
    if mask.ndim != 3:
        return mask
    image_geometry = decode_geometry(read_image_file(image, limits), str(image))
    return align_mask(mask, decode_geometry(content, str(path)), image_geometry, str(path))


def decode_mask(content: bytes, where: str, limits: DataParams | float) -> Mask:
    """Decode the bytes of a mask file, as `read_mask` does; `where` is the name of the file in errors."""
    return decode_mask_with_notes(content, where, limits)[0]


def decode_mask_with_notes(content: bytes, where: str, limits: DataParams | float) -> tuple[Mask, list[str]]:
    """Decode a mask as `decode_mask` does, and report conversions."""
    array, notes = _decode(content, where, Bounds.from_limits(limits), indices=True)
    if array.ndim == 4 and array.shape[-1] > 1:
        notes.append(f"{array.shape[-1]} volumes of 0 and 1 read as one class each")
    return class_values(array, where), notes


def read_stored(path: Path, limits: DataParams) -> np.ndarray:
    """Read the pixels of an image file as they are stored: (H, W, C) or (D, H, W, C), in the dtype of the file.

    A palette image gives its indices.

    Raises:
        DataError: the file is too large, truncated, broken or not an image.
    """
    return decode_stored(read_image_file(path, limits), str(path), limits)


def decode_stored(content: bytes, where: str, limits: DataParams) -> np.ndarray:
    """Decode the bytes of an image file as `read_stored` does; `where` is the name of the file in errors."""
    return _decode(content, where, Bounds.from_limits(limits), indices=True)[0]


def class_values(array: np.ndarray, where: str) -> Mask:
    """Return the class values of a decoded mask: (H, W, C) or (D, H, W, C) -> (H, W) or (D, H, W), uint8 or uint16.

    Args:
        array: what `read_stored` returns.
        where: the file, for errors.

    A volume with one 0/1 channel per class, of which exactly one is 1 at each voxel (one-hot), gives the number of that channel.

    Raises:
        DataError: the channels differ, or the values are not whole numbers from 0 to 65535.
    """
    if array.ndim == 4 and array.shape[-1] > 1:
        return classes_of_planes(array, where)
    if any((array[..., c] != array[..., 0]).any() for c in range(1, array.shape[-1])):
        raise DataError(
            "the mask is in colours",
            where=where,
            found="channels that differ",
            expected="one channel of class values",
            fix="save masks as 8-bit grey or palette PNG whose pixel values are the classes",
        )
    mask = np.ascontiguousarray(array[..., 0])
    if mask.dtype in (np.uint8, np.uint16):
        return mask
    if (mask != np.round(mask)).any() or mask.min() < 0 or mask.max() > 65535:  # NaN is not equal to itself
        raise DataError(
            "the values of the mask are not class values",
            where=where,
            found=f"{mask.dtype}, {mask.min()} to {mask.max()}",
            expected="whole numbers from 0 to 65535",
            fix="save masks as 8- or 16-bit grey PNG",
        )
    return mask.astype(np.uint16)


def decode_geometry(content: bytes, where: str) -> Geometry | None:
    """Return the spacing and orientation of a volume from its header.

    Args:
        content: the bytes of the file.
        where: the name of the file in errors.

    Returns:
        The geometry; None for files that do not state it.
    """
    if is_nifti(content):
        return nifti_geometry(content, where)
    kind = kind_of(content)
    return kind.geometry(content, where) if kind is not None and kind.geometry is not None else None


def _decode(content: bytes, where: str, bounds: Bounds, indices: bool) -> tuple[np.ndarray, list[str]]:
    if not content:
        raise DataError("the file is empty", where=where, fix=RESTORE_FIX)
    if is_nifti(content):
        if not bounds.volumes:
            raise DataError("is a volume", where=where, expected="a 2D image", fix="save its slices as PNG")
        array, notes = decode_nifti(content, where, bounds)
    elif is_tiff(content):
        array, notes = decode_tiff(content, where, bounds, indices)
    elif (kind := kind_of(content)) is not None:
        array, notes = kind.decode(content, where, bounds, indices)
    elif is_numpy(content):
        array, notes = decode_numpy(content, where, bounds, is_mask=indices)
    else:
        array, notes = decode_raster(content, where, bounds, indices)
    if not array.dtype.isnative:
        array = array.byteswap(inplace=array.flags.writeable).view(array.dtype.newbyteorder("="))
    return array, notes


def _to_supported_type(array: np.ndarray, where: str, notes: list[str]) -> np.ndarray:
    """Convert to uint8, uint16 or float32, depending on the dtype and not on the values. Raises DataError for NaN or infinity."""
    if array.dtype in (np.uint8, np.uint16):
        return array
    if (
        array.dtype.kind in "iu"
        and array.itemsize > 2
        and max(-int(array.min()), int(array.max())) > _MAX_EXACT_FLOAT32
    ):
        notes.append(f"whole numbers above {_MAX_EXACT_FLOAT32:,} rounded to 32-bit floats")
    if array.dtype == np.float64:
        notes.append("64-bit floats rounded to 32 bits")
    return _as_floats(array, where)


def _as_floats(array: np.ndarray, where: str) -> npt.NDArray[np.float32]:
    """Convert to float32 band by band, in the memory of the array if possible. Raises DataError for NaN or infinity."""
    flat = array.reshape(-1)
    if flat.dtype == np.float32:
        floats = flat
    elif flat.flags.writeable and flat.itemsize >= 4:
        floats = flat.view(np.float32)[: flat.size]  # writing never overtakes reading
    else:
        floats = np.empty(flat.size, np.float32)
    for start in range(0, flat.size, _BAND_PIXELS):
        band = slice(start, start + _BAND_PIXELS)
        with np.errstate(over="ignore"):
            converted = flat[band].astype(np.float32, copy=False)
        if not np.isfinite(converted).all():
            raise DataError(
                "has pixels that are not finite (NaN or infinity)",
                where=where,
                fix="replace them with a value",
            )
        if floats is not flat:
            floats[band] = converted
    return floats.reshape(array.shape)

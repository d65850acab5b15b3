"""Decode PNG, JPEG, BMP, WebP, GIF and PPM: formats with one 2D image per file."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image

from segpipe.data.images.bounds import RESTORE_FIX, Bounds, decoder_errors_as_data_errors
from segpipe.data.images.file_names import LINK_FIX, saved_link
from segpipe.data.images.png import decode_png, png_chunks
from segpipe.errors import DataError

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "PPM")
_GREY = ("1", "L", "LA", "I", "I;16", "I;16B")
_JPEG_END = b"\xff\xd9"
_ORIENTATION_TAG = 0x0112

# PIL has one fixed limit for the whole process. `Bounds` follows params.yaml instead, and is checked before decoding.
Image.MAX_IMAGE_PIXELS = None
# OpenCV's messages on stderr would only repeat what the DataError of a damaged file says.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}
"""Functions that turn an image (H, W, C) upright, by its orientation: the value of the EXIF (and TIFF) tag 274. 1 is upright."""

SIDEWAYS = (5, 6, 7, 8)
"""The orientations of files whose height and width are swapped."""


def orientation_notes(orientation: int) -> list[str]:
    """Return the note about turning an image upright; an empty list if it is upright already."""
    return [f"turned upright (orientation {orientation})"] if orientation in _UPRIGHT else []


def as_upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """Return a view of an image (H, W) or (H, W, C) that is stored with this orientation, turned upright."""
    return _UPRIGHT[orientation](stored) if orientation in _UPRIGHT else stored


def as_stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """Return a view of an upright image (H, W, C) with the axes of a file that has this orientation."""
    inverse = {6: 8, 8: 6}.get(orientation, orientation)  # all other orientations are their own inverse
    return _UPRIGHT[inverse](upright) if inverse in _UPRIGHT else upright


@contextlib.contextmanager
def raster_header(file: Path | BinaryIO, where: Path | str) -> Iterator[Image.Image]:
    """Open an image file with Pillow to read its header.

    Args:
        file: the file, or a stream of its bytes.
        where: its name in errors.

    Raises:
        DataError: the file is damaged. Pillow has errors of many types for that.
    """
    with decoder_errors_as_data_errors(str(where)), Image.open(file) as image:
        yield image


def decode_raster(content: bytes, where: str, bounds: Bounds, indices: bool) -> tuple[np.ndarray, list[str]]:
    """Decode an image file and turn it upright.

    Args:
        content: the bytes of the file.
        where: the name of the file in errors.
        bounds: the limits for the file.
        indices: True to return the indices of a palette image instead of its colours.

    Returns:
        image: (H, W, 1) or (H, W, 3) RGB, uint8 or uint16 as stored, without alpha.
        notes: the conversions that were made.

    Raises:
        DataError: if the file is too large, incomplete, damaged or not an image.
    """
    with decoder_errors_as_data_errors(where), _header(content, where, bounds) as image:
        notes = _notes(image, content, where, indices)
        orientation = _orientation(image, content)
        if (indices and image.mode == "P") or image.format == "MPO":
            array = np.asarray(image if image.mode in ("L", "P") else image.convert("RGB"))
        elif image.format == "PNG":
            array = decode_png(content, where)
        elif image.format == "JPEG":
            array = _decode_jpeg(image, content)
        elif image.format == "PPM":
            image.load()  # reports a file that is cut off, which OpenCV does not; 16 bits are read by OpenCV alone
            array = _decode_with_opencv(content, where, grey=image.mode in _GREY)
        elif image.format == "GIF":
            array = np.asarray(image if image.mode == "L" else image.convert("RGB"))
        else:
            image.verify()
            array = _decode_with_opencv(content, where, grey=image.mode in _GREY)
    notes += orientation_notes(orientation)
    array = np.atleast_3d(array)
    return (np.ascontiguousarray(_UPRIGHT[orientation](array)) if orientation in _UPRIGHT else array), notes


def raster_orientation(content: bytes, where: str, bounds: Bounds) -> tuple[int, tuple[int, int]]:
    """Return the EXIF orientation (1 is upright) and the stored height and width. Raises the same errors as `raster_size`."""
    with decoder_errors_as_data_errors(where), _header(content, where, bounds) as image:
        return _orientation(image, content), (image.height, image.width)


def raster_size(content: bytes, where: str, bounds: Bounds) -> tuple[int, int]:
    """Return the height and width that `decode_raster` would give, from the header. Raises the same errors if the header shows them."""
    with decoder_errors_as_data_errors(where), _header(content, where, bounds) as image:
        sideways = _orientation(image, content) in SIDEWAYS
        return (image.width, image.height) if sideways else (image.height, image.width)


def _header(content: bytes, where: str, bounds: Bounds) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
    except Image.UnidentifiedImageError as error:
        if link := saved_link(content):
            raise DataError("is a link that was saved as a text file", where=where, found=link, fix=LINK_FIX) from error
        raise DataError(
            "is not an image in a supported format",
            where=where,
            expected="PNG, JPEG, TIFF, BMP, WebP, GIF, NumPy or NIfTI",
            fix="convert it to PNG",
        ) from error
    bounds.check(where, image.height, image.width)
    return image


def _decode_jpeg(image: Image.Image, content: bytes) -> np.ndarray:
    """Decode a JPEG file with imagecodecs, or with PIL if it is CMYK or lacks its end marker.

    libjpeg fills in missing pixels. Only PIL reports them, so a file without its end marker is left to PIL.
    """
    if image.mode not in ("L", "RGB") or not content.endswith(_JPEG_END):
        return np.asarray(image if image.mode == "L" else image.convert("RGB"))
    import imagecodecs

    return imagecodecs.jpeg8_decode(content)


def _decode_with_opencv(content: bytes, where: str, grey: bool) -> np.ndarray:
    flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    array = cv2.imdecode(np.frombuffer(content, np.uint8), flags if grey else flags | cv2.IMREAD_COLOR_RGB)
    if array is None:
        raise DataError("cannot be decoded: damaged or cut short", where=where, fix=RESTORE_FIX)
    return array


def _notes(image: Image.Image, content: bytes, where: str, indices: bool) -> list[str]:
    """Return the conversions that decoding will make, from the header. Raises DataError for an animation."""
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise DataError(
            "holds several pages",
            where=where,
            found=f"{frames} frames",
            expected="one image per file",
            fix="save each frame as a separate file",
        )
    depth = content[24] if image.format == "PNG" else 1 if image.mode == "1" else 8
    notes = {
        f"first of {frames} pictures in the file": frames > 1,
        "alpha channel dropped": image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info,
        "palette expanded to colours": image.mode in ("P", "PA") and not indices,
        "CMYK converted to RGB": image.mode == "CMYK",
        f"{depth}-bit grey spread over 0 to 255": depth < 8 and image.mode in ("1", "L"),
    }
    return [note for note, applies in notes.items() if applies]


def _orientation(image: Image.Image, content: bytes) -> int:
    """Return the EXIF orientation; 1 if there is none."""
    if image.format != "PNG":
        exif = image.getexif()
    else:  # PIL would decode the whole image to look for EXIF at its end
        exif = Image.Exif()
        exif.load(next((data for name, data in png_chunks(content) if name == b"eXIf"), b""))
    return int(exif.get(_ORIENTATION_TAG, 1))

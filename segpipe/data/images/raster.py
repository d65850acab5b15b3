"""PNG, JPEG, BMP and WebP: one picture a file."""

from __future__ import annotations

import io
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image

from segpipe.data.images.bounds import RESTORE_FIX, Bounds, decoder_errors_as_data_errors
from segpipe.data.images.png import decode_png, png_chunks
from segpipe.errors import DataError

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
_GREY = ("1", "L", "LA", "I", "I;16", "I;16B")
_JPEG_END = b"\xff\xd9"
_ORIENTATION = 0x0112

# PIL's own guard has one fixed limit for the whole process; ours follows params.yaml and comes before any decoding.
Image.MAX_IMAGE_PIXELS = None
cv2.utils.logging.setLogLevel(
    cv2.utils.logging.LOG_LEVEL_SILENT
)  # a broken file becomes a DataError; OpenCV's words on stderr would only repeat it

_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}
"""How an image (H, W, C) becomes upright, by the value of the EXIF (and TIFF) tag 274; 1 is upright."""

SIDEWAYS = (5, 6, 7, 8)
"""The orientations in which height and width change places."""


def turn_notes(orientation: int) -> list[str]:
    """What turning an image upright is called; nothing for one that is."""
    return [f"turned upright (orientation {orientation})"] if orientation in _TURNS else []


def before_turning(upright: np.ndarray, orientation: int) -> np.ndarray:
    """A view of an upright image (H, W, C) as it lay in a file of this orientation."""
    back = {6: 8, 8: 6}.get(orientation, orientation)  # the other turns undo themselves
    return _TURNS[back](upright) if back in _TURNS else upright


def decode_raster(content: bytes, where: str, bounds: Bounds, indices: bool) -> tuple[np.ndarray, list[str]]:
    """(H, W, 1) or (H, W, 3) RGB, uint8 or uint16 as stored, upright, without alpha; and what was converted.

    `indices`: a palette image gives its indices, not its colours. Raises DataError for a file that is too large, does not hold
    all that it promises, or is no image.
    """
    with decoder_errors_as_data_errors(where), _header(content, where, bounds) as image:
        notes = _notes(image, content, where, indices)
        orientation = _orientation(image, content)
        if (indices and image.mode == "P") or image.format == "MPO":
            array = np.asarray(image if image.mode in ("L", "P") else image.convert("RGB"))
        elif image.format == "PNG":
            array = decode_png(content, where)
        elif image.format == "JPEG":
            array = _by_libjpeg(image, content)
        else:
            image.verify()
            array = _by_opencv(content, where, grey=image.mode in _GREY)
    notes += turn_notes(orientation)
    array = np.atleast_3d(array)
    return (np.ascontiguousarray(_TURNS[orientation](array)) if orientation in _TURNS else array), notes


def raster_size(content: bytes, where: str, bounds: Bounds) -> tuple[int, int]:
    """Height and width as `decode_raster` would give them, from the header alone; the same errors, as far as that tells."""
    with decoder_errors_as_data_errors(where), _header(content, where, bounds) as image:
        turned = _orientation(image, content) in SIDEWAYS
        return (image.width, image.height) if turned else (image.height, image.width)


def _header(content: bytes, where: str, bounds: Bounds) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
    except Image.UnidentifiedImageError as error:
        raise DataError(
            "is no image that can be read", where=where, expected="PNG, JPEG, TIFF, BMP, WebP or NIfTI",
            fix="convert it to PNG",
        ) from error
    bounds.check(where, image.height, image.width)
    return image


def _by_libjpeg(image: Image.Image, content: bytes) -> np.ndarray:
    """By imagecodecs. libjpeg fills in what is missing, and of the two only PIL says so: the end must be there. CMYK is PIL's
    business, too.
    """
    if image.mode not in ("L", "RGB") or not content.endswith(_JPEG_END):
        return np.asarray(image if image.mode == "L" else image.convert("RGB"))
    import imagecodecs

    return imagecodecs.jpeg8_decode(content)  # type: ignore[no-any-return]


def _by_opencv(content: bytes, where: str, grey: bool) -> np.ndarray:
    flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    array = cv2.imdecode(np.frombuffer(content, np.uint8), flags if grey else flags | cv2.IMREAD_COLOR_RGB)
    if array is None:
        raise DataError("cannot be decoded: broken or cut short", where=where, fix=RESTORE_FIX)
    return array


def _notes(image: Image.Image, content: bytes, where: str, indices: bool) -> list[str]:
    """What decoding will change, by the header."""
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise DataError(
            "holds several pages", where=where, found=f"{frames} frames", expected="one image a file",
            fix="save each frame as a file",
        )
    depth = content[24] if image.format == "PNG" else 1 if image.mode == "1" else 8
    told = {
        f"first of {frames} pictures in the file": frames > 1,
        "alpha channel dropped": image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info,
        "palette expanded to colours": image.mode in ("P", "PA") and not indices,
        "CMYK converted to RGB": image.mode == "CMYK",
        f"{depth}-bit grey spread over 0 to 255": depth < 8 and image.mode in ("1", "L"),
    }
    return [note for note, applies in told.items() if applies]


def _orientation(image: Image.Image, content: bytes) -> int:
    """The EXIF orientation; 1 where there is none."""
    if image.format != "PNG":
        exif = image.getexif()
    else:  # PIL would decode the whole image to see whether EXIF stands at its end
        exif = Image.Exif()
        exif.load(next((data for name, data in png_chunks(content) if name == b"eXIf"), b""))
    return int(exif.get(_ORIENTATION, 1))

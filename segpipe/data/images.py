"""Image files in, image files out. Everything is bounded before it is decoded: bytes first, then the header's pixels."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, TiffImagePlugin

from segpipe.config import DataParams
from segpipe.errors import DataError
from segpipe.files import read_bytes

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
"""Endings (lower case) of the files that are taken for images."""

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
_READABLE = "PNG, JPEG, TIFF, BMP or WebP"
_TIFF = (b"II*\0", b"MM\0*")
_RESTORE = "restore the file, or take it out of the data"

# PIL's own guard has one fixed limit for the whole process; ours follows params.yaml and comes before any decoding.
Image.MAX_IMAGE_PIXELS = None
cv2.utils.logging.setLogLevel(
    cv2.utils.logging.LOG_LEVEL_SILENT
)  # a broken file becomes a DataError; OpenCV's words on stderr would only repeat it


def read_image(path: Path, limits: DataParams) -> np.ndarray:
    """The pixels of an image file: (H, W, C), C 1 or 3 (RGB order), uint8, uint16 or float32 as stored.

    Alpha is dropped and the EXIF rotation applied. Raises DataError for a file that is too large, cut short, broken or no image.
    """
    return decode_image(read_bytes(path, max_bytes(limits)), str(path), limits.max_megapixels)


def decode_image(content: bytes, where: str, max_megapixels: float) -> np.ndarray:
    """As `read_image`, from bytes (an upload, say); `where` names them in the error."""
    _check_header(content, where, max_megapixels)
    return _real_dtype(_decode(content, where), where)


def read_mask(path: Path, limits: DataParams) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """The file values of a mask: (H, W), uint8 or uint16. A palette mask gives its indices.

    Raises DataError as `read_image` does, and for a mask in colours.
    """
    return decode_mask(read_bytes(path, max_bytes(limits)), str(path), limits.max_megapixels)


def decode_mask(content: bytes, where: str, max_megapixels: float) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """As `read_mask`, from bytes; `where` names them in the error."""
    if _check_header(content, where, max_megapixels) == "P":
        with _broken_files_are_data_errors(where), Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            return np.asarray(image)
    mask = _decode(content, where)
    if (mask[:, :, 1:] != mask[:, :, :1]).any():
        raise DataError(
            "the mask is in colours", where=where, found="channels that differ", expected="one channel of class values",
            fix="save masks as 8-bit grey or palette PNG whose pixel values are the classes",
        )  # fmt: skip
    mask = mask[:, :, 0]
    if mask.dtype in (np.uint8, np.uint16):
        return mask
    if not np.isfinite(mask).all() or (mask != np.round(mask)).any() or mask.min() < 0 or mask.max() > 65535:
        raise DataError(
            "the mask's values are no class values", where=where, found=f"{mask.dtype}, {mask.min()} to {mask.max()}",
            expected="whole numbers from 0 to 65535", fix="save masks as 8- or 16-bit grey PNG",
        )  # fmt: skip
    return mask.astype(np.uint16)


def encode_png(array: np.ndarray) -> bytes:
    """(H, W) or (H, W, 3) RGB, uint8 or uint16 -> the bytes of a PNG file."""
    flipped = array[:, :, ::-1] if array.ndim == 3 and array.shape[2] == 3 else array
    done, content = cv2.imencode(".png", np.ascontiguousarray(flipped))
    assert done, f"PNG takes no {array.dtype} array of shape {array.shape}"
    return content.tobytes()


def image_files(folder: Path) -> list[Path]:
    """The image files right in a folder, in name order; hidden files are left out."""
    if not folder.is_dir():
        return []
    return sorted(
        p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()
    )


def max_bytes(limits: DataParams) -> int:
    """The largest file that is read, in bytes."""
    return int(limits.max_file_mb * 2**20)


@contextlib.contextmanager
def _broken_files_are_data_errors(where: str) -> Iterator[None]:
    """PIL's many exceptions (OSError, SyntaxError, struct.error ...) for a file that is no image, as one DataError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # PIL warns about odd metadata of files that it then reads well, or refuses anyway
            yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"cannot be decoded: {error or type(error).__name__}",
            where=where,
            fix=_RESTORE,
        ) from error


def _check_header(content: bytes, where: str, max_megapixels: float) -> str:
    """PIL's name for the pixel mode ("" where PIL knows none), from the header alone; DataError for what must not be decoded."""
    if not content:
        raise DataError("the file is empty", where=where, fix=_RESTORE)
    with _broken_files_are_data_errors(where):
        width, height, pages, mode = _tiff_header(content) if content[:4] in _TIFF else _header(content, where)
    if width * height > max_megapixels * 1e6:
        raise DataError(
            "the image has too many pixels", where=where, found=f"{width} x {height}",
            expected=f"at most {max_megapixels:g} megapixels", fix="cut it into tiles, or raise the limit (max_megapixels)",
        )  # fmt: skip
    if pages > 1:
        raise DataError(
            "holds several pages", where=where, found=pages, expected="one image a file", fix="save each page as a file"
        )
    return mode


def _header(content: bytes, where: str) -> tuple[int, int, int, str]:
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            return image.width, image.height, 1, image.mode
    except Image.UnidentifiedImageError as error:
        raise DataError(
            "is no image that can be read", where=where, expected=_READABLE, fix="convert it to PNG"
        ) from error


def _tiff_header(content: bytes) -> tuple[int, int, int, str]:
    """As `_header`, by the tags themselves: PIL does not open every TIFF that OpenCV reads (float RGB, say)."""
    stream = io.BytesIO(content)
    tags = TiffImagePlugin.ImageFileDirectory_v2(stream.read(8))
    stream.seek(tags.next)
    tags.load(stream)
    palette = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 3 and tags.get(TiffImagePlugin.BITSPERSAMPLE) == (
        8,
    )
    return (
        int(tags[TiffImagePlugin.IMAGEWIDTH]),
        int(tags[TiffImagePlugin.IMAGELENGTH]),
        1 + bool(tags.next),
        "P" if palette else "",
    )


def _decode(content: bytes, where: str) -> np.ndarray:
    """(H, W, 1) or (H, W, 3) RGB, in the dtype that is stored; DataError where the file does not hold all it promises."""
    tiff = content[:4] in _TIFF
    with _broken_files_are_data_errors(where):
        grey_alpha = False
        if not tiff:
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                if image.format in ("JPEG", "MPO"):  # libjpeg fills in what is missing, and only PIL says so
                    upright = ImageOps.exif_transpose(image)
                    return np.atleast_3d(np.asarray(upright if upright.mode == "L" else upright.convert("RGB")))
                grey_alpha = image.mode == "LA"
                image.verify()  # checksums and chunks
        array = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    if array is None:
        raise DataError("cannot be decoded: broken or cut short", where=where, fix=_RESTORE)
    if array.ndim == 2:
        return array[:, :, None]
    return array[:, :, :1] if grey_alpha else np.ascontiguousarray(array[:, :, ::-1])


def _real_dtype(array: np.ndarray, where: str) -> np.ndarray:
    """The array as uint8, uint16 or float32; DataError where it holds NaN or infinity."""
    if array.dtype in (np.uint8, np.uint16):
        return array
    if not np.isfinite(array).all():
        raise DataError(
            "holds pixels that are no numbers (NaN or infinity)",
            where=where,
            fix="replace them by a value before import",
        )
    if array.dtype.kind == "i" and array.min() >= 0 and array.max() <= 65535:
        return array.astype(np.uint16)
    return array.astype(np.float32)

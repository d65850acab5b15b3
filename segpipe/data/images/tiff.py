"""Decode TIFF and BigTIFF: any number of channels and pages, integers and floats, interleaved or planar, in strips or tiles."""

from __future__ import annotations

import io
import logging
import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from segpipe.data.images.bounds import RESTORE_FIX, Bounds, decoder_errors_as_data_errors
from segpipe.data.images.tiff_axes import PageAxes, page_axes
from segpipe.data.images.tiff_pixels import (
    ORIENTATION_TAG,
    decoded_shape,
    make_pixels,
    make_recipe,
    name_of,
    stack_pixels,
)
from segpipe.errors import DataError

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MAX_PAGES = 20_000
_JPEG = "JPEG"
_COMPRESSIONS = (
    "NONE",
    "LZW",
    "DEFLATE",
    "ADOBE_DEFLATE",
    "PACKBITS",
    "LZMA",
    "ZSTD",
    "CCITTRLE",
    "CCITTFAX3",
    "CCITTFAX4",
    _JPEG,
)
"""Supported compressions. Their decoders stop at the size that the tags of the page give, which is bounded; a JPEG header states the
size itself."""

_PHOTOMETRICS = ("MINISWHITE", "MINISBLACK", "RGB", "PALETTE", "MASK", "SEPARATED", "YCBCR")


def is_tiff(content: bytes) -> bool:
    """Return whether the bytes begin like a TIFF or BigTIFF file."""
    return content[:4] in _MAGIC


def decode_tiff(content: bytes, where: str, bounds: Bounds, indices: bool) -> tuple[np.ndarray, list[str]]:
    """Decode a TIFF file.

    Args:
        content: the bytes of the file.
        where: the name of the file in errors.
        bounds: the limits for the file. `bounds.pages` says how several pages are read.
        indices: True to return the indices of a palette image instead of its colours.

    Returns:
        image: (H, W, C), or (D, H, W, C) if pages are the slices of a volume, in the stored type. Alpha is dropped; channels without a
            stated meaning are kept.
        notes: the conversions that were made.

    Raises:
        DataError: if the file is too large, truncated, damaged or of an unsupported kind.
    """
    from tifffile import TiffFile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # damaged files become a DataError
    with decoder_errors_as_data_errors(where), io.BytesIO(content) as stream, TiffFile(stream) as file:
        pages = _pages(file, where)
        first = pages[0]
        bounds.check(where, first.imagelength, first.imagewidth, first.samplesperpixel, len(pages))
        for page in pages:
            _check_page(page, first, content, where)
        recipe = make_recipe(first, where, indices)
        if len(pages) == 1:
            return make_pixels(first, content, recipe), recipe.notes
        axes = page_axes(file)
        if axes is not None and axes.pages == len(pages) and _axes_decide(axes, bounds):
            return _arranged(pages, content, axes, where, bounds, indices)
        if bounds.pages == "refuse":
            raise DataError(
                "holds several pages",
                where=where,
                found=len(pages),
                expected="one image per file",
                fix="save each page as a separate file, or set data.pages to channels or volume",
            )
        as_channels = bounds.pages == "channels"
        recipes = [recipe, *(make_recipe(page, where, indices) for page in pages[1:])]
        notes = [f"{len(pages)} pages read as {'channels' if as_channels else 'a volume'}", *recipe.notes]
        return stack_pixels(pages, content, recipes, as_channels), notes


def tiff_orientation(content: bytes, where: str) -> tuple[int, tuple[int, int]]:
    """Return the orientation of the first page of a TIFF file (1 is upright), and its stored height and width.

    Raises:
        DataError: the file is damaged.
    """
    from tifffile import TiffFile

    with decoder_errors_as_data_errors(where), io.BytesIO(content) as stream, TiffFile(stream) as file:
        page = file.pages.first
        return int(page.tags.valueof(ORIENTATION_TAG, default=1)), (page.imagelength, page.imagewidth)


def tiff_size(content: bytes, where: str, bounds: Bounds) -> tuple[int, int] | None:
    """Return height and width of a TIFF file as `decode_tiff` gives them, without decoding it; None if it has several pages.

    Args:
        content: the bytes of the file.
        where: the name of the file in errors.
        bounds: the limits for the file.

    Raises:
        DataError: if the file is too large, cut short or of an unsupported kind.
    """
    from tifffile import TiffFile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # damaged files become a DataError
    with decoder_errors_as_data_errors(where), io.BytesIO(content) as stream, TiffFile(stream) as file:
        pages = _pages(file, where)
        if len(pages) > 1:
            return None
        page = pages[0]
        bounds.check(where, page.imagelength, page.imagewidth, page.samplesperpixel)
        _check_page(page, page, content, where)
        height, width, _ = decoded_shape(page, make_recipe(page, where, indices=False))
        return height, width


def _axes_decide(axes: PageAxes, bounds: Bounds) -> bool:
    """Return whether the axes that a file states decide: if the settings leave it open, or if pages are channels as well as slices."""
    several = sum(size > 1 for size in axes.sizes.values())
    return axes.sizes["T"] == 1 and (several > 1 or bounds.pages == "refuse")


def _arranged(
    pages: list[TiffPage], content: bytes, axes: PageAxes, where: str, bounds: Bounds, indices: bool
) -> tuple[np.ndarray, list[str]]:
    """Decode pages whose axes the file states, to (H, W, C) or (D, H, W, C)."""
    if axes.sizes["Z"] > 1 and not bounds.volumes:
        raise DataError("is a volume", where=where, expected="a 2D image", fix="save its slices as PNG")
    recipes = [make_recipe(page, where, indices) for page in pages]
    kinds = [
        f"{axes.sizes[axis]} {word}" for axis, word in (("C", "channels"), ("Z", "slices")) if axes.sizes[axis] > 1
    ]
    notes = [f"{len(pages)} pages read as {' of '.join(kinds)}, as the file says", *recipes[0].notes]
    return axes.arrange(stack_pixels(pages, content, recipes, as_channels=False)), notes


def _pages(file: TiffFile, where: str) -> list[TiffPage]:
    """Return the pages that are images, without reduced copies (of pyramids) and transparency masks."""
    count = len(file.pages)
    if not 0 < count <= _MAX_PAGES:
        raise DataError(
            "cannot be decoded: unsupported number of pages",
            where=where,
            found=count,
            expected=f"1 to {_MAX_PAGES}",
            fix=RESTORE_FIX,
        )
    images = (file.imagej_metadata or {}).get("images", 1) if file.is_imagej else 1
    if count == 1 and images > 1:
        raise DataError(
            "is an ImageJ stack whose images are not stored as pages",
            where=where,
            found=f"{images} images on one page",
            fix="save it as an image sequence, or as OME-TIFF",
        )
    pages = [file.pages[i].aspage() for i in range(count)]
    return [page for page in pages if not page.subfiletype & 5] or pages[:1]


def _check_page(page: TiffPage, first: TiffPage, content: bytes, where: str) -> None:
    """Raise DataError if the tags of a page show that it cannot be decoded, or not within the bounds."""
    size, expected = _size(page), _size(first)
    if size != expected:
        raise DataError(
            "the pages differ in size or type",
            where=where,
            found=size,
            expected=expected,
            fix="save each page as a separate file",
        )
    for what, value, supported in (
        ("compression", name_of(page.compression), _COMPRESSIONS),
        ("colour space", name_of(page.photometric), _PHOTOMETRICS),
    ):
        if value not in supported:
            raise DataError(
                f"unsupported {what} of TIFF",
                where=where,
                found=value,
                expected=", ".join(supported),
                fix="save it with LZW compression, in RGB",
            )
    if name_of(page.photometric) == "YCBCR" and name_of(page.compression) != _JPEG:
        raise DataError("uncompressed YCbCr is not supported", where=where, fix="save it with LZW compression, in RGB")
    if page.dtype is None or page.dtype.kind not in "buif" or page.imagedepth != 1:
        raise DataError("unsupported type of pixels", where=where, found=page.dtype, fix="save integers or floats")
    parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    complete = len(parts) == math.prod(page.chunked)
    complete = complete and all(count and offset + count <= len(content) for offset, count in parts)
    if name_of(page.compression) == "NONE":
        row_bits = page.imagewidth * page.samplesperpixel * page.bitspersample
        complete = complete and sum(count for _, count in parts) >= page.imagelength * -(-row_bits // 8)
    if not complete:
        raise DataError("cannot be decoded: cut short, or parts of the image are missing", where=where, fix=RESTORE_FIX)
    if name_of(page.compression) == _JPEG:
        for offset, count in parts:
            _check_jpeg_size(page, content[offset : offset + count], where)


def _check_jpeg_size(page: TiffPage, content: bytes, where: str) -> None:
    """Raise DataError if the header of a JPEG strip or tile states a larger size than the page allows."""
    with Image.open(io.BytesIO(content), formats=("JPEG",)) as part:
        max_width, max_height = max(page.tilewidth, page.imagewidth), max(page.tilelength, page.imagelength)
        if part.width > max_width or part.height > max_height:
            raise DataError(
                "cannot be decoded: a part is larger than the header of the image states",
                where=where,
                found=f"{part.width} x {part.height}",
                expected=f"at most {max_width} x {max_height}",
                fix=RESTORE_FIX,
            )


def _size(page: TiffPage) -> str:
    return f"{page.imagewidth} x {page.imagelength}, {page.samplesperpixel} channels, {page.dtype}"

"""TIFF: any number of channels and pages, whole numbers and floats, interleaved or planar, in strips or tiles, also BigTIFF."""

from __future__ import annotations

import io
import logging
import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from segpipe.data.images.bounds import RESTORE_FIX, Bounds, decoder_errors_as_data_errors
from segpipe.data.images.tiff_pixels import make_pixels, make_recipe, name_of, stack_pixels
from segpipe.errors import DataError

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MAX_PAGES = 20_000
_JPEG = "JPEG"
_COMPRESSIONS = (
    "NONE", "LZW", "DEFLATE", "ADOBE_DEFLATE", "PACKBITS", "LZMA", "ZSTD", "CCITTRLE", "CCITTFAX3", "CCITTFAX4", _JPEG,
)
"""Decoders of these stop at the size that the page's tags give, which is bounded, or (JPEG) say in their own header what comes."""

_PHOTOMETRICS = ("MINISWHITE", "MINISBLACK", "RGB", "PALETTE", "MASK", "SEPARATED", "YCBCR")


def is_tiff(content: bytes) -> bool:
    """Whether the bytes begin as TIFF or BigTIFF does."""
    return content[:4] in _MAGIC


def decode_tiff(content: bytes, where: str, bounds: Bounds, indices: bool) -> tuple[np.ndarray, list[str]]:
    """(H, W, C), or (D, H, W, C) where `bounds.pages` makes a volume of several pages, in the dtype stored; and what was converted.

    `indices`: a palette image gives its indices, not its colours. Alpha is dropped, channels of no said meaning are kept.
    Raises DataError for a file that is too large, cut short, broken or of a kind that is not read.
    """
    from tifffile import TiffFile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it has to say of broken files becomes a DataError
    with decoder_errors_as_data_errors(where), io.BytesIO(content) as stream, TiffFile(stream) as file:
        pages = _pages(file, where)
        first = pages[0]
        bounds.check(where, first.imagelength, first.imagewidth, first.samplesperpixel, len(pages))
        for page in pages:
            _check_page(page, first, content, where)
        recipe = make_recipe(first, where, indices)
        if len(pages) == 1:
            return make_pixels(first, content, recipe), recipe.notes
        if bounds.pages == "refuse":
            raise DataError(
                "holds several pages", where=where, found=len(pages), expected="one image a file",
                fix="save each page as a file, or say what pages are: data.pages: channels, or volume",
            )
        as_channels = bounds.pages == "channels"
        recipes = [recipe, *(make_recipe(page, where, indices) for page in pages[1:])]
        notes = [f"{len(pages)} pages read as {'channels' if as_channels else 'a volume'}", *recipe.notes]
        return stack_pixels(pages, content, recipes, as_channels), notes


def _pages(file: TiffFile, where: str) -> list[TiffPage]:
    """The pages that are images: reduced copies (of pyramids) and transparency masks are passed over."""
    count = len(file.pages)
    if not 0 < count <= _MAX_PAGES:
        raise DataError("cannot be decoded: pages that make no image", where=where, found=count, fix=RESTORE_FIX)
    images = (file.imagej_metadata or {}).get("images", 1) if file.is_imagej else 1
    if count == 1 and images > 1:
        raise DataError(
            "an ImageJ stack whose images lie outside the pages", where=where, found=f"{images} images on one page",
            fix="save it as an image sequence, or as OME-TIFF",
        )
    pages = [file.pages[i].aspage() for i in range(count)]
    return [page for page in pages if not page.subfiletype & 5] or pages[:1]


def _check_page(page: TiffPage, first: TiffPage, content: bytes, where: str) -> None:
    """Refuse what cannot be decoded, or not within bounds, by its tags."""
    size, expected = _size(page), _size(first)
    if size != expected:
        raise DataError(
            "its pages differ in size or kind",
            where=where,
            found=size,
            expected=expected,
            fix="save each page as a file",
        )
    for what, found, known in (
        ("this compression", name_of(page.compression), _COMPRESSIONS),
        ("this colour space", name_of(page.photometric), _PHOTOMETRICS),
    ):
        if found not in known:
            raise DataError(
                f"{what} of TIFF is not read",
                where=where,
                found=found,
                expected=", ".join(known),
                fix="save it with LZW, in RGB",
            )
    if name_of(page.photometric) == "YCBCR" and name_of(page.compression) != _JPEG:
        raise DataError("uncompressed YCbCr is not read", where=where, fix="save it with LZW, in RGB")
    if page.dtype is None or page.dtype.kind not in "buif" or page.imagedepth != 1:
        raise DataError(
            "pixels of this kind are not read", where=where, found=page.dtype, fix="save whole numbers or floats"
        )
    parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    whole = len(parts) == math.prod(page.chunked) and all(n and at + n <= len(content) for at, n in parts)
    if name_of(page.compression) == "NONE":
        row_bits = page.imagewidth * page.samplesperpixel * page.bitspersample
        whole = whole and sum(n for _, n in parts) >= page.imagelength * -(-row_bits // 8)
    if not whole:
        raise DataError("cannot be decoded: cut short, or parts of the image are missing", where=where, fix=RESTORE_FIX)
    if name_of(page.compression) == _JPEG:
        for at, count in parts:
            with Image.open(io.BytesIO(content[at : at + count]), formats=("JPEG",)) as part:
                if part.width > max(page.tilewidth, page.imagewidth) or part.height > max(
                    page.tilelength, page.imagelength
                ):
                    raise DataError(
                        "cannot be decoded: a part is larger than the image says", where=where,
                        found=f"{part.width} x {part.height}", fix=RESTORE_FIX,
                    )


def _size(page: TiffPage) -> str:
    return f"{page.imagewidth} x {page.imagelength}, {page.samplesperpixel} channels, {page.dtype}"

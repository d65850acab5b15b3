"""TIFF: any number of channels and pages, whole numbers and floats, interleaved or planar, in strips or tiles, also BigTIFF."""

from __future__ import annotations

import io
import logging
import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from segpipe.data.images.bounds import RESTORE, Bounds, broken_files_are_data_errors
from segpipe.data.images.raster import upright
from segpipe.errors import DataError

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MAX_PAGES = 20_000
_JPEG = "JPEG"
_COMPRESSIONS = (
    "NONE", "LZW", "DEFLATE", "ADOBE_DEFLATE", "PACKBITS", "LZMA", "ZSTD", "CCITTRLE", "CCITTFAX3", "CCITTFAX4", _JPEG,
)  # fmt: skip
"""Decoders of these stop at the size that the page's tags give, which is bounded, or (JPEG) say in their own header what comes."""

_PHOTOMETRICS = ("MINISWHITE", "MINISBLACK", "RGB", "PALETTE", "MASK", "SEPARATED", "YCBCR")
_ALPHA = ("ASSOCALPHA", "UNASSALPHA")


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
    with broken_files_are_data_errors(where), TiffFile(io.BytesIO(content)) as file:
        pages = _pages(file, where)
        first = pages[0]
        bounds.check(where, first.imagelength, first.imagewidth, first.samplesperpixel, len(pages))
        for page in pages:
            _check_page(page, first, content, where)
        notes: list[str] = []
        if len(pages) == 1:
            return _pixels(first, where, indices, notes), notes
        if bounds.pages == "refuse":
            raise DataError(
                "holds several pages", where=where, found=len(pages), expected="one image a file",
                fix="save each page as a file, or say what pages are: data.pages: channels, or volume",
            )  # fmt: skip
        notes.append(f"{len(pages)} pages read as {'channels' if bounds.pages == 'channels' else 'a volume'}")
        stack = _stack(pages, where, indices, notes)
    depth, height, width, channels = stack.shape
    if bounds.pages == "channels":
        return np.ascontiguousarray(stack.transpose(1, 2, 0, 3)).reshape(height, width, depth * channels), notes
    return stack, notes


def _pages(file: TiffFile, where: str) -> list[TiffPage]:
    """The pages that are images: reduced copies (of pyramids) and transparency masks are passed over."""
    count = len(file.pages)
    if not 0 < count <= _MAX_PAGES:
        raise DataError("cannot be decoded: pages that make no image", where=where, found=count, fix=RESTORE)
    images = (file.imagej_metadata or {}).get("images", 1) if file.is_imagej else 1
    if count == 1 and images > 1:
        raise DataError(
            "an ImageJ stack whose images lie outside the pages", where=where, found=f"{images} images on one page",
            fix="save it as an image sequence, or as OME-TIFF",
        )  # fmt: skip
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
        ("this compression", _name(page.compression), _COMPRESSIONS),
        ("this colour space", _name(page.photometric), _PHOTOMETRICS),
    ):
        if found not in known:
            raise DataError(
                f"{what} of TIFF is not read",
                where=where,
                found=found,
                expected=", ".join(known),
                fix="save it with LZW, in RGB",
            )
    if _name(page.photometric) == "YCBCR" and _name(page.compression) != _JPEG:
        raise DataError("uncompressed YCbCr is not read", where=where, fix="save it with LZW, in RGB")
    if page.dtype is None or page.dtype.kind not in "buif" or page.imagedepth != 1:
        raise DataError(
            "pixels of this kind are not read", where=where, found=page.dtype, fix="save whole numbers or floats"
        )
    parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    whole = len(parts) == math.prod(page.chunked) and all(n and at + n <= len(content) for at, n in parts)
    if _name(page.compression) == "NONE":
        row_bits = page.imagewidth * page.samplesperpixel * page.bitspersample
        whole = whole and sum(n for _, n in parts) >= page.imagelength * -(-row_bits // 8)
    if not whole:
        raise DataError("cannot be decoded: cut short, or parts of the image are missing", where=where, fix=RESTORE)
    if _name(page.compression) == _JPEG:
        for at, count in parts:
            with Image.open(io.BytesIO(content[at : at + count]), formats=("JPEG",)) as part:
                if part.width > max(page.tilewidth, page.imagewidth) or part.height > max(
                    page.tilelength, page.imagelength
                ):
                    raise DataError(
                        "cannot be decoded: a part is larger than the image says", where=where,
                        found=f"{part.width} x {part.height}", fix=RESTORE,
                    )  # fmt: skip


def _name(value: object) -> str:
    return getattr(value, "name", str(value))


def _size(page: TiffPage) -> str:
    return f"{page.imagewidth} x {page.imagelength}, {page.samplesperpixel} channels, {page.dtype}"


def _stack(pages: list[TiffPage], where: str, indices: bool, notes: list[str]) -> np.ndarray:
    """(pages, H, W, C), one page decoded at a time; what is noted of the first page holds for all."""
    first = _pixels(pages[0], where, indices, notes)
    stack = np.empty((len(pages), *first.shape), first.dtype)
    stack[0] = first
    for index, page in enumerate(pages[1:], start=1):
        stack[index] = _pixels(page, where, indices, [])
    return stack


def _pixels(page: TiffPage, where: str, indices: bool, notes: list[str]) -> np.ndarray:
    """One page, (H, W, C): colours as RGB, without alpha, upright."""
    array = page.asarray(squeeze=False, maxworkers=1)[:, 0]  # (separate samples, H, W, interleaved samples)
    planes = array[0] if array.shape[0] == 1 else np.moveaxis(array[..., 0], 0, -1)
    kind = _name(page.photometric)
    if kind == "PALETTE" and not indices:
        notes.append("palette expanded to colours")
        planes = _palette(page)[planes[:, :, 0]]
    alpha = [
        planes.shape[2] - len(page.extrasamples) + i for i, k in enumerate(page.extrasamples) if _name(k) in _ALPHA
    ]
    if alpha:
        notes.append("alpha channel dropped")
        planes = np.delete(planes, alpha, axis=2)
    if kind == "MINISWHITE" and planes.dtype.kind in "bu":
        notes.append("inverted: 0 stood for white")
        planes = ~planes if planes.dtype == bool else planes.dtype.type(2**page.bitspersample - 1) - planes
    if kind == "SEPARATED":
        planes = _rgb_from_cmyk(planes, where)
        notes.append("CMYK converted to RGB")
    if planes.dtype == bool:
        notes.append("1-bit grey spread over 0 to 255")
        planes = planes.astype(np.uint8) * 255
    return np.ascontiguousarray(upright(planes, int(page.tags.valueof(274, default=1)), notes))


def _palette(page: TiffPage) -> np.ndarray:
    """The colours of a palette, (n, 3), uint8. Entries are 16-bit; some writers put 8-bit ones there, as libtiff knows."""
    colours = np.asarray(page.colormap).T
    return (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)


def _rgb_from_cmyk(planes: np.ndarray, where: str) -> np.ndarray:
    """(H, W, 4), uint8 ink -> (H, W, 3) RGB, by the product of what each ink and black let through."""
    if planes.shape[2] != 4 or planes.dtype != np.uint8:
        raise DataError(
            "inks that are not read", where=where, found=f"{planes.shape[2]} of {planes.dtype}", expected="CMYK in 8 bits",
            fix="save it in RGB",
        )  # fmt: skip
    light = 255 - planes.astype(np.uint16)
    return ((light[:, :, :3] * light[:, :, 3:].astype(np.uint32) + 127) // 255).astype(np.uint8)

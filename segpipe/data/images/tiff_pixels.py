"""Decode the pixels of a TIFF page strip by strip or tile by tile, so that no second copy of the image is in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from segpipe.data.images.raster import SIDEWAYS, as_stored, orientation_notes
from segpipe.errors import DataError

if TYPE_CHECKING:
    from tifffile import TiffPage

_ALPHA = ("ASSOCALPHA", "UNASSALPHA")
ORIENTATION_TAG = 274
_READ_BYTES = 1 << 22
_BLOCK_PIXELS = 1 << 20

Step = Callable[[np.ndarray], np.ndarray]


class Recipe(NamedTuple):
    """The conversion of the stored samples of a page to pixels. TIFF calls each value of a pixel a sample."""

    keep: list[int]
    """The indices of the samples that are not alpha."""
    steps: list[Step]
    """Functions applied one after another to any block of the page, (h, w, kept samples); the last returns (h, w, C)."""
    orientation: int
    """The value of the orientation tag; 1 is upright."""
    notes: list[str]
    """The conversions, for the user."""

    def convert(self, block: np.ndarray) -> np.ndarray:
        """Apply all steps to a block."""
        for step in self.steps:
            block = step(block)
        return block


class _Block(NamedTuple):
    """A part of a page as stored."""

    first_sample: int
    """The index of the first sample in `pixels`; not 0 if each sample has a plane of its own."""
    rows: slice
    columns: slice
    pixels: np.ndarray
    """(h, w, samples)."""


def name_of(value: object) -> str:
    """Return the name of a value of an enumeration of tifffile; the number itself if tifffile does not know it."""
    return getattr(value, "name", str(value))


def make_recipe(page: TiffPage, where: str, indices: bool) -> Recipe:
    """Choose the conversion of a page: colours become RGB, and alpha is dropped.

    Args:
        page: the page.
        where: the name of the file in errors.
        indices: True to keep the indices of a palette image.

    Raises:
        DataError: if the page has unsupported inks.
    """
    samples, kind = page.samplesperpixel, name_of(page.photometric)
    extra_names = dict(enumerate(map(name_of, page.extrasamples), start=samples - len(page.extrasamples)))
    keep = [sample for sample in range(samples) if extra_names.get(sample) not in _ALPHA]
    steps: list[Step] = []
    notes: list[str] = []
    dtype = page.dtype
    assert dtype is not None
    if kind == "PALETTE" and not indices:
        notes.append("palette expanded to colours")
        colours = _palette(page)
        steps.append(lambda block: colours[block[:, :, 0]])
    if len(keep) < samples:
        notes.append("alpha channel dropped")
    if kind == "MINISWHITE" and dtype.kind in "bu":
        notes.append("inverted: 0 stood for white")
        white = dtype.type(2**page.bitspersample - 1)
        steps.append(lambda block: white ^ block)  # all bits of white are set
    if kind == "SEPARATED":
        if len(keep) != 4 or dtype != np.uint8:
            raise DataError(
                "unsupported inks",
                where=where,
                found=f"{len(keep)} of {dtype}",
                expected="4 of uint8 (CMYK)",
                fix="save it in RGB",
            )
        notes.append("CMYK converted to RGB")
        steps.append(_rgb_from_cmyk)
    if dtype.kind == "b":
        notes.append("1-bit grey spread over 0 to 255")
        steps.append(lambda block: block.astype(np.uint8) * 255)
    orientation = int(page.tags.valueof(ORIENTATION_TAG, default=1))
    return Recipe(keep, steps, orientation, notes + orientation_notes(orientation))


def make_pixels(page: TiffPage, content: bytes, recipe: Recipe) -> np.ndarray:
    """Decode a page to (H, W, C), upright.

    The result is a read-only view of `content` if the file stores the pixels in exactly this form.
    """
    whole = _read_whole_page(page, content)
    if whole is not None and _needs_no_conversion(whole, recipe):
        return whole
    shape, dtype = _decoded_shape_and_dtype(page, recipe)
    pixels = np.empty(shape, dtype)
    _fill(pixels, page, whole, recipe)
    return pixels


def stack_pixels(pages: list[TiffPage], content: bytes, recipes: list[Recipe], as_channels: bool) -> np.ndarray:
    """Decode pages of one size, one at a time, to (D, H, W, C), or with `as_channels` to (H, W, D * C)."""
    (height, width, channels), dtype = _decoded_shape_and_dtype(pages[0], recipes[0])
    if as_channels:
        stack = np.empty((height, width, len(pages) * channels), dtype)
        parts = np.split(stack, len(pages), axis=2)
    else:
        stack = np.empty((len(pages), height, width, channels), dtype)
        parts = list(stack)
    for pixels, page, recipe in zip(parts, pages, recipes, strict=True):
        _fill(pixels, page, _read_whole_page(page, content), recipe)
    return stack


def _needs_no_conversion(whole: np.ndarray, recipe: Recipe) -> bool:
    """Return whether stored samples (H, W, samples) are pixels already, in a memory layout that every library accepts."""
    unchanged = not recipe.steps and not orientation_notes(recipe.orientation) and len(recipe.keep) == whole.shape[2]
    return unchanged and whole.flags.aligned and whole.flags.c_contiguous and whole.dtype.isnative


def decoded_shape(page: TiffPage, recipe: Recipe) -> tuple[int, int, int]:
    """Return the shape (H, W, C) of the decoded pixels of a page."""
    return _decoded_shape_and_dtype(page, recipe)[0]


def _decoded_shape_and_dtype(page: TiffPage, recipe: Recipe) -> tuple[tuple[int, int, int], np.dtype]:
    """Return the shape (H, W, C) and the dtype of the decoded pixels of a page."""
    height, width = page.imagelength, page.imagewidth
    converted = recipe.convert(np.empty((0, 1, len(recipe.keep)), page.dtype))
    size = (width, height) if recipe.orientation in SIDEWAYS else (height, width)
    return (*size, converted.shape[2]), converted.dtype


def _fill(pixels: np.ndarray, page: TiffPage, whole: np.ndarray | None, recipe: Recipe) -> None:
    """Decode a page into `pixels`, (H, W, C), which may be a part of a larger array.

    whole: all samples of the page, (H, W, samples), or None to decode it block by block.
    """
    target = as_stored(pixels, recipe.orientation)
    for first, rows, columns, block in _blocks(page, whole, together=bool(recipe.steps)):
        samples = [sample for sample in recipe.keep if first <= sample < first + block.shape[2]]
        if not samples:
            continue
        part = block if len(samples) == block.shape[2] else block[:, :, np.subtract(samples, first)]
        converted, channel = recipe.convert(part), recipe.keep.index(samples[0])
        target[rows, columns, channel : channel + converted.shape[2]] = converted


def _blocks(page: TiffPage, whole: np.ndarray | None, together: bool) -> Iterator[_Block]:
    """Yield the blocks of a page. With `together` each block has all samples of its pixels, even if the file stores them in planes."""
    height, width = page.imagelength, page.imagewidth
    if whole is None and together and page.shaped[0] > 1:
        whole = np.moveaxis(page.asarray(squeeze=False, maxworkers=1, buffersize=_READ_BYTES)[:, 0, :, :, 0], 0, -1)
    if whole is None:
        for decoded, (plane, _, top, left, _), _ in page.segments(maxworkers=1, buffersize=_READ_BYTES):
            block = decoded[0, : height - top, : width - left]  # a tile may extend beyond the image
            rows, columns = slice(top, top + block.shape[0]), slice(left, left + block.shape[1])
            yield _Block(plane, rows, columns, block)
        return
    step = max(1, _BLOCK_PIXELS // width)
    for top in range(0, height, step):
        yield _Block(0, slice(top, top + step), slice(None), whole[top : top + step])


def _read_whole_page(page: TiffPage, content: bytes) -> np.ndarray | None:
    """Return all samples of a page, (H, W, samples), if that needs no memory besides the image; else None.

    It needs none if the samples are stored uncompressed and contiguously, or in one strip.
    """
    assert page.dtype is not None
    if page.is_final:
        dtype = page.dtype.newbyteorder(page.parent.byteorder)
        flat = np.frombuffer(content, dtype, math.prod(page.shaped), page.dataoffsets[0])
        stored = flat.reshape(page.shaped)[:, 0]  # (separate samples, H, W, interleaved samples)
        return stored[0] if len(stored) == 1 else np.moveaxis(stored[..., 0], 0, -1)
    if len(page.dataoffsets) == 1:
        ((decoded, _, _),) = page.segments(maxworkers=1)
        return decoded[0, : page.imagelength, : page.imagewidth]
    return None


def _palette(page: TiffPage) -> np.ndarray:
    """Return the colours of a palette, (n, 3), uint8. Entries have 16 bits, but some programs write 8-bit values, as libtiff notes."""
    colours = np.asarray(page.colormap).T
    return (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)


def _rgb_from_cmyk(block: np.ndarray) -> np.ndarray:
    """Convert CMYK (h, w, 4), uint8, to RGB (h, w, 3): each channel is the product of the light that its ink and black let through."""
    light = 255 - block.astype(np.uint16)
    return ((light[:, :, :3] * light[:, :, 3:].astype(np.uint32) + 127) // 255).astype(np.uint8)

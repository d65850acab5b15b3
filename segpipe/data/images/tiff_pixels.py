"""The pixels of a page of a TIFF file, strip by strip or tile by tile: beside the picture that is made, no second one is held."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from segpipe.data.images.raster import SIDEWAYS, before_turning, turn_notes
from segpipe.errors import DataError

if TYPE_CHECKING:
    from tifffile import TiffPage

_ALPHA = ("ASSOCALPHA", "UNASSALPHA")
_ORIENTATION = 274
_READ_BYTES = 1 << 22
_BLOCK_PIXELS = 1 << 20

Step = Callable[[np.ndarray], np.ndarray]


class Recipe(NamedTuple):
    """How stored samples become pixels."""

    keep: list[int]
    """The samples that are no alpha."""
    steps: list[Step]
    """Each makes (h, w, C) of (h, w, samples kept), whatever block of the page these are."""
    orientation: int
    notes: list[str]

    def convert(self, block: np.ndarray) -> np.ndarray:
        """All steps."""
        for step in self.steps:
            block = step(block)
        return block


class _Block(NamedTuple):
    """A part of a page as stored. pixels: (h, w, samples), those from `sample` on."""

    sample: int
    rows: slice
    columns: slice
    pixels: np.ndarray


def name_of(value: object) -> str:
    """The name of one of tifffile's enumerations; numbers that it does not know as they are."""
    return getattr(value, "name", str(value))


def make_recipe(page: TiffPage, where: str, indices: bool) -> Recipe:
    """Colours become RGB, alpha is dropped. `indices`: a palette's indices stay. Raises DataError for inks that are not read."""
    samples, kind = page.samplesperpixel, name_of(page.photometric)
    named = dict(enumerate(map(name_of, page.extrasamples), start=samples - len(page.extrasamples)))
    keep = [sample for sample in range(samples) if named.get(sample) not in _ALPHA]
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
        steps.append(lambda block: white ^ block)  # of white, all bits are set
    if kind == "SEPARATED":
        if len(keep) != 4 or dtype != np.uint8:
            raise DataError(
                "inks that are not read",
                where=where,
                found=f"{len(keep)} of {dtype}",
                expected="CMYK in 8 bits",
                fix="save it in RGB",
            )
        notes.append("CMYK converted to RGB")
        steps.append(_rgb_from_cmyk)
    if dtype.kind == "b":
        notes.append("1-bit grey spread over 0 to 255")
        steps.append(lambda block: block.astype(np.uint8) * 255)
    orientation = int(page.tags.valueof(_ORIENTATION, default=1))
    return Recipe(keep, steps, orientation, notes + turn_notes(orientation))


def make_pixels(page: TiffPage, content: bytes, recipe: Recipe) -> np.ndarray:
    """(H, W, C), upright, in the byte order of the machine; what lies in the file as it is wanted is a read-only view of `content`."""
    whole = _whole(page, content)
    if whole is not None and _is_wanted(whole, recipe):
        return whole
    shape, dtype = _outcome(page, recipe)
    pixels = np.empty(shape, dtype)
    _fill(pixels, page, whole, recipe)
    return pixels


def stack_pixels(pages: list[TiffPage], content: bytes, recipes: list[Recipe], as_channels: bool) -> np.ndarray:
    """Pages of one size as (D, H, W, C), or `as_channels` as (H, W, D x C), decoded one at a time."""
    (height, width, channels), dtype = _outcome(pages[0], recipes[0])
    if as_channels:
        stack = np.empty((height, width, len(pages) * channels), dtype)
        parts = np.split(stack, len(pages), axis=2)
    else:
        stack = np.empty((len(pages), height, width, channels), dtype)
        parts = list(stack)
    for pixels, page, recipe in zip(parts, pages, recipes, strict=True):
        _fill(pixels, page, _whole(page, content), recipe)
    return stack


def _is_wanted(whole: np.ndarray, recipe: Recipe) -> bool:
    """Whether samples (H, W, samples) are pixels already, and lie so that every library takes them."""
    plain = not recipe.steps and not turn_notes(recipe.orientation) and len(recipe.keep) == whole.shape[2]
    return plain and whole.flags.aligned and whole.flags.c_contiguous and whole.dtype.isnative


def _outcome(page: TiffPage, recipe: Recipe) -> tuple[tuple[int, int, int], np.dtype]:
    """Shape (H, W, C) and dtype of the pixels of a page."""
    height, width = page.imagelength, page.imagewidth
    made = recipe.convert(np.empty((0, 1, len(recipe.keep)), page.dtype))
    size = (width, height) if recipe.orientation in SIDEWAYS else (height, width)
    return (*size, made.shape[2]), made.dtype


def _fill(pixels: np.ndarray, page: TiffPage, whole: np.ndarray | None, recipe: Recipe) -> None:
    """Decode a page into `pixels`, (H, W, C), which may be a part of a larger array. whole: what `_whole` gives."""
    lying = before_turning(pixels, recipe.orientation)
    for first, rows, columns, block in _blocks(page, whole, together=bool(recipe.steps)):
        kept = [sample for sample in recipe.keep if first <= sample < first + block.shape[2]]
        if not kept:
            continue
        part = block if len(kept) == block.shape[2] else block[:, :, np.subtract(kept, first)]
        made, channel = recipe.convert(part), recipe.keep.index(kept[0])
        lying[rows, columns, channel : channel + made.shape[2]] = made


def _blocks(page: TiffPage, whole: np.ndarray | None, together: bool) -> Iterator[_Block]:
    """The blocks of a page. `together`: with all samples of a pixel, even where each has a plane of its own."""
    height, width = page.imagelength, page.imagewidth
    if whole is None and together and page.shaped[0] > 1:
        whole = np.moveaxis(page.asarray(squeeze=False, maxworkers=1, buffersize=_READ_BYTES)[:, 0, :, :, 0], 0, -1)
    if whole is None:
        for decoded, (plane, _, top, left, _), _ in page.segments(maxworkers=1, buffersize=_READ_BYTES):
            block = decoded[0, : height - top, : width - left]  # a tile may reach beyond the image
            rows, columns = slice(top, top + block.shape[0]), slice(left, left + block.shape[1])
            yield _Block(plane, rows, columns, block)
        return
    step = max(1, _BLOCK_PIXELS // width)
    for top in range(0, height, step):
        yield _Block(0, slice(top, top + step), slice(None), whole[top : top + step])


def _whole(page: TiffPage, content: bytes) -> np.ndarray | None:
    """(H, W, samples) at once, where that costs no memory beside the picture: they lie one behind the other, or are one strip."""
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
    """The colours of a palette, (n, 3), uint8. Entries are 16-bit; some writers put 8-bit ones there, as libtiff knows."""
    colours = np.asarray(page.colormap).T
    return (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)


def _rgb_from_cmyk(block: np.ndarray) -> np.ndarray:
    """(h, w, 4), uint8 ink -> (h, w, 3) RGB, by the product of what each ink and black let through."""
    light = 255 - block.astype(np.uint16)
    return ((light[:, :, :3] * light[:, :, 3:].astype(np.uint32) + 127) // 255).astype(np.uint8)

"""What the pixels of masks in folders stand for: by that the layouts of `segpipe.data.formats.pairs` are told apart."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from segpipe.config import DataParams
from segpipe.data.classes import are_instance_ids, read_value_counts
from segpipe.data.dataset import CLASSES_FILE
from segpipe.data.formats.pairs import find_pairs
from segpipe.data.formats.source import RawItem, ReadOptions
from segpipe.data.images import VOLUME_SUFFIXES, read_image, read_mask, suffix_of
from segpipe.errors import DataError

_LOOKED_AT, _LOOKED_BYTES = 8, 1 << 23

_OBJECTS_ABOVE = 32
"""More values than this in 16 bits, with gaps, are numbers of objects."""

MaskKind = Literal["classes", "objects", "colours"]

_BY_KIND: dict[MaskKind, tuple[str, str]] = {
    "classes": ("folder", "class values"),
    "objects": ("label-maps", "numbers of objects"),
    "colours": ("colour-masks", "colours"),
}


def recognise_named(source: Path, options: ReadOptions) -> tuple[str, str] | None:
    """The layout, and why, of a source whose folder of masks the user has named; None where that is left open.

    Errors as of `find_pairs`.
    """
    if not (options.masks and (source / options.masks).is_dir()):
        return None
    items = [item for item in find_pairs(source, options).items if item.mask]
    if items and any(item.mask and ".nii" in item.mask.suffixes for item in items):
        return "volumes", "the folders named hold NIfTI volumes"
    if options.overlapping:
        return ("folder", "the folders named, with masks that are sums of bits") if items else None
    if options.palette is not None or options.tolerance is not None:
        return "colour-masks", "the folders named, and a palette"
    layout, words = _BY_KIND[mask_kind(first_masks(source, options))]
    return layout, f"the folders named, with masks of {words}"


def first_masks(source: Path, options: ReadOptions = ReadOptions()) -> list[Path]:
    """`some_masks` of a source of this kind; nothing where it is of another kind."""
    try:
        return some_masks(find_pairs(source, options).items)
    except DataError:
        return []


def some_masks(items: list[RawItem]) -> list[Path]:
    """Some mask files of pictures, evenly spread, none of them large."""
    masks = [item.mask for item in items if item.mask and suffix_of(item.mask) not in VOLUME_SUFFIXES]
    some = masks[:: max(1, len(masks) // _LOOKED_AT)]
    return [mask for mask in some if mask.is_file() and mask.stat().st_size < _LOOKED_BYTES]


def mask_kind(masks: list[Path]) -> MaskKind:
    """What the pixels of these masks stand for: classes, numbers of objects, or colours that stand for classes."""
    limits = DataParams()  # type: ignore[call-arg]
    if any(_in_colours(mask, limits) for mask in masks):
        return "colours"
    try:
        read = read_value_counts(masks, limits)
    except DataError:  # the import will name the file
        return "classes"
    values = sorted({value for counts in read for value in counts})
    sparse_numbers = values[-1] > 255 and len(values) > _OBJECTS_ABOVE
    return "objects" if are_instance_ids(read) or sparse_numbers else "classes"


def _in_colours(mask: Path, limits: DataParams) -> bool:
    """Whether a mask holds no values (or indices into a palette), but colours."""
    try:
        read_mask(mask, limits)
    except DataError:
        try:
            pixels = read_image(mask, limits)
        except DataError:
            return False
        return bool((pixels[..., 1:] != pixels[..., :1]).any())
    return False


def recognise_pairs(source: Path, kind: MaskKind) -> str | None:
    """The folders of images and masks of a source whose masks are of this kind, in words; None where there are none such."""
    masks = first_masks(source)
    if not masks or kind != ("classes" if (source / CLASSES_FILE).exists() else mask_kind(masks)):
        return None
    return ", ".join(find_pairs(source, ReadOptions()).notes)

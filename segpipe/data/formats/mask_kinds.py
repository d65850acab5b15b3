"""The kinds of masks, decided from the pixels of a sample: class values, instance ids, or colours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from segpipe.data.classes import are_instance_ids, read_value_counts
from segpipe.data.formats.listing import FolderListing
from segpipe.data.formats.source import RawItem
from segpipe.data.images import VOLUME_SUFFIXES, suffix_of
from segpipe.data.mask_content import MaskReader
from segpipe.errors import DataError

MaskKind = Literal["classes", "instances", "colours"]

_SAMPLES = 8
_MAX_SAMPLE_BYTES = 1 << 23
_MIN_SPARSE_IDS = 32
"""Masks with 16-bit values that hold more different values than this, with gaps, hold instance ids."""


def sample_masks(items: Sequence[RawItem], listing: FolderListing) -> list[Path]:
    """Return some mask files of images (not volumes), evenly spread, without large ones."""
    masks = [item.mask for item in items if item.mask and suffix_of(item.mask) not in VOLUME_SUFFIXES]
    sample = masks[:: max(1, len(masks) // _SAMPLES)]
    return [mask for mask in sample if listing.is_file(mask) and listing.size(mask) < _MAX_SAMPLE_BYTES]


def decide_mask_kind(masks: Sequence[Path], reader: MaskReader) -> MaskKind:
    """Return the kind of these masks, by their pixel values; "classes" if they cannot be read, so that the import reports why."""
    if any(reader.read(mask).in_colours for mask in masks):
        return "colours"
    try:
        counts = read_value_counts(list(masks), reader)
    except DataError:
        return "classes"
    values = {value for mask_counts in counts for value in mask_counts}
    are_sparse_ids = max(values) > 255 and len(values) > _MIN_SPARSE_IDS
    return "instances" if are_instance_ids(counts) or are_sparse_ids else "classes"

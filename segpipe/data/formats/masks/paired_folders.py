"""Recognition of the layouts that pair images and masks in two folders; they differ in the kind of their masks."""

from __future__ import annotations

from segpipe.data.dataset import CLASSES_FILE
from segpipe.data.formats.mask_kinds import MaskKind
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import ReadOptions
from segpipe.data.images import VOLUME_SUFFIXES, suffix_of
from segpipe.errors import DataError

_LAYOUTS: dict[MaskKind, tuple[str, str]] = {
    "classes": ("folder", "class values"),
    "instances": ("label-maps", "instance ids"),
    "colours": ("colour-masks", "colours"),
}
"""The layout of each kind of mask, and the kind in words."""


def recognise_paired_folders(probe: SourceProbe, kind: MaskKind) -> str | None:
    """Return the folders of images and masks of a source, in words, if its masks are of this kind; otherwise None."""
    try:
        pairs = probe.pairs()
    except DataError:
        return None
    masks = probe.sample_masks(pairs.items)
    if not masks:
        return None
    source_kind = "classes" if (probe.source / CLASSES_FILE).exists() else probe.mask_kind(masks)
    return ", ".join(pairs.notes) if source_kind == kind else None


def recognise_named_folders(probe: SourceProbe, options: ReadOptions) -> tuple[str, str] | None:
    """Return the layout, and the reason, of a source if the user has named the folder of masks; otherwise None.

    Raises:
        DataError: as `SourceProbe.pairs`.
        ConfigError: as `SourceProbe.pairs`.
    """
    if not (options.masks and (probe.source / options.masks).is_dir()):
        return None
    items = [item for item in probe.pairs(options).items if item.mask]
    if any(item.mask and suffix_of(item.mask) in VOLUME_SUFFIXES for item in items):
        return "volumes", "the named folders hold NIfTI volumes"
    if options.overlapping:
        return ("folder", "the named folders, with masks that are sums of bits") if items else None
    if options.palette is not None or options.tolerance is not None:
        return "colour-masks", "the named folders, and a palette"
    layout, words = _LAYOUTS[probe.mask_kind(probe.sample_masks(items))]
    return layout, f"the named folders, with masks of {words}"

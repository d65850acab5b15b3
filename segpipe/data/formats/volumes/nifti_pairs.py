"""`volumes`: NIfTI images and NIfTI masks in two folders, paired by file name (`segpipe.data.formats.pairs`).

```
SRC/images/a.nii.gz   SRC/labels/a.nii.gz     also masks/, imagesTr/ with labelsTr/, a_seg.nii.gz and the like
```
"""

from __future__ import annotations

from pathlib import Path

from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import NO_OPTIONS, ReadOptions, ReadResult
from segpipe.data.images import VOLUME_SUFFIXES, suffix_of
from segpipe.errors import DataError


def recognise_volumes(probe: SourceProbe) -> str | None:
    """Return why the source has this layout: folders of images and of masks that are all NIfTI. None otherwise."""
    try:
        result = probe.pairs(_with_decathlon_folders(probe, NO_OPTIONS))
    except DataError:
        return None
    paired = [item for item in result.items if item.mask]
    if not paired or not all(_is_volume(item.image) and _is_volume(item.mask) for item in paired if item.mask):
        return None
    return f"{', '.join(result.notes)}: {len(paired)} NIfTI volumes with masks"


def read_volumes(probe: SourceProbe, options: ReadOptions) -> ReadResult:
    """Read the layout; files that are not NIfTI are left out.

    Raises:
        DataError: there is no volume, or as in `segpipe.data.formats.pairs.find_pairs`.
        ConfigError: as in `segpipe.data.formats.pairs.find_pairs`.
    """
    source = probe.source
    result = probe.pairs(_with_decathlon_folders(probe, options))
    items = []
    for item in result.items:
        other = next((path for path in (item.image, item.mask) if path is not None and not _is_volume(path)), None)
        if other is None:
            items.append(item)
        else:
            name = other.relative_to(source).as_posix() if other.is_relative_to(source) else other.name
            result.skipped.append((name, "not a NIfTI file"))
    if not items:
        raise DataError(
            "no volumes",
            where=source,
            found=": ".join(result.skipped[0]) if result.skipped else "nothing",
            expected="pairs of " + " or ".join(VOLUME_SUFFIXES),
            fix="choose another --format (folder, for images)",
        )
    result.items = items
    return result


def _with_decathlon_folders(probe: SourceProbe, options: ReadOptions) -> ReadOptions:
    """Return options with the folder names of the Medical Segmentation Decathlon, if they exist and the user names none."""
    names = ("imagesTr", "labelsTr")
    if (
        options.images
        or options.masks
        or options.pattern
        or not all(probe.listing.is_folder(probe.source / name) for name in names)
    ):
        return options
    return options.model_copy(update=dict(zip(("images", "masks"), names, strict=True)))


def _is_volume(path: Path) -> bool:
    return suffix_of(path) in VOLUME_SUFFIXES

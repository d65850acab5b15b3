"""`volumes`: NIfTI images and NIfTI masks in folders of their own, paired by file name (`segpipe.data.formats.pairs`).

```
SRC/images/a.nii.gz   SRC/labels/a.nii.gz     also masks/, imagesTr/ with labelsTr/, a_seg.nii.gz and the like
```
"""

from __future__ import annotations

from pathlib import Path

from segpipe.data.formats.pairs import find_pairs
from segpipe.data.formats.source import ReadOptions, ReadResult
from segpipe.data.images import VOLUME_SUFFIXES, suffix_of
from segpipe.errors import DataError


def recognise_volumes(source: Path) -> str | None:
    """Why `source` is of this layout: folders of images and of masks, all NIfTI; None where it is not."""
    try:
        found = find_pairs(source, _folders(source, ReadOptions()))
    except DataError:
        return None
    paired = [item for item in found.items if item.mask]
    if not paired or not all(_is_volume(item.image) and _is_volume(item.mask) for item in paired if item.mask):
        return None
    return f"{', '.join(found.notes)}: {len(paired)} NIfTI volumes with masks"


def read_volumes(source: Path, options: ReadOptions) -> ReadResult:
    """Read the layout; what is no NIfTI is left out. Errors as of `find_pairs`, and DataError where there is no volume at all."""
    found = find_pairs(source, _folders(source, options))
    kept = []
    for item in found.items:
        odd = next((path for path in (item.image, item.mask) if path is not None and not _is_volume(path)), None)
        if odd is None:
            kept.append(item)
        else:
            found.skipped.append(
                (odd.relative_to(source).as_posix() if odd.is_relative_to(source) else odd.name, "is no NIfTI file")
            )
    if not kept:
        raise DataError(
            "no volumes", where=source, found=found.skipped[0] if found.skipped else "nothing",
            expected="pairs of " + " or ".join(VOLUME_SUFFIXES), fix="choose another --format (folder, for pictures)",
        )
    found.items = kept
    return found


def _folders(source: Path, options: ReadOptions) -> ReadOptions:
    """The Decathlon's names for the two folders, where the user names none and they are there."""
    if options.images or options.masks or not ((source / "imagesTr").is_dir() and (source / "labelsTr").is_dir()):
        return options
    return options.model_copy(update={"images": "imagesTr", "masks": "labelsTr"})


def _is_volume(path: Path) -> bool:
    return suffix_of(path) in VOLUME_SUFFIXES

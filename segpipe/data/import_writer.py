"""Writing the items of a source as the canonical layout has them: files copied, labels drawn, several at a time."""

from __future__ import annotations

import errno
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segpipe.concurrency import map_ahead
from segpipe.config import DataParams
from segpipe.data.classes import SourceClasses
from segpipe.data.formats.source import RawItem
from segpipe.data.images import (
    VOLUME_SUFFIXES,
    encode_png,
    encode_stack,
    read_mask,
    read_size,
    stem_of,
    suffix_of,
)
from segpipe.errors import DataError
from segpipe.progress import track

COPIED_SUFFIXES = (".png", *VOLUME_SUFFIXES)
"""Endings of mask files that stay as they are; others become PNG."""

_OF_THE_SOURCE = {
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.ELOOP,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EIO,
    errno.ESTALE,
}
"""Faults of a file that is read; copying names the source for others too."""


@dataclass
class WriteOutcome:
    """What became of one item: whether its image and its labels were written, what was left out and why, what was decided."""

    image: bool = False
    mask: bool = False
    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)


def write_items(
    folder: Path, items: list[RawItem], keys: list[str], classes: SourceClasses, limits: DataParams, jobs: int
) -> list[WriteOutcome]:
    """Write all items into a folder with images/, masks/ and instances/, by threads (decoders let go of the interpreter's lock).

    At most two items a thread are begun ahead of the one that is counted. The outcomes come in the order of the items; a file
    that cannot be read is told of there, and stops nothing.
    """

    def write(pair: tuple[RawItem, str]) -> WriteOutcome:
        return _write_item(folder, *pair, classes, limits)

    written = map_ahead(write, zip(items, keys, strict=True), jobs)
    return [future.result() for _, future in track(written, "importing", len(items))]


def _write_item(folder: Path, item: RawItem, key: str, classes: SourceClasses, limits: DataParams) -> WriteOutcome:
    outcome = WriteOutcome()
    image = folder / "images" / f"{key}{suffix_of(item.image)}"
    try:
        if item.content is None:
            shutil.copyfile(item.image, image)
        else:
            image.write_bytes(item.content())
    except DataError as error:
        outcome.skipped.append((str(item.image), str(error)))
        return outcome
    except OSError as error:
        outcome.skipped.append(_unreadable(item.image, error))
        return outcome
    outcome.image = True
    labels = item.mask or item.image
    try:
        _write_labels(folder, item, image, classes, limits, outcome)
    except DataError as error:
        outcome.skipped.append((str(labels), str(error)))
    except OSError as error:
        outcome.skipped.append(_unreadable(labels, error))
    return outcome


def _unreadable(path: Path, error: OSError) -> tuple[str, str]:
    """What to tell of a source file that cannot be read; a fault of the target (a full disk, say) is raised."""
    if error.errno not in _OF_THE_SOURCE or Path(str(error.filename)) != path:
        raise error
    return str(path), f"cannot be read: {error.strerror}"


def _write_labels(
    folder: Path, item: RawItem, image: Path, classes: SourceClasses, limits: DataParams, outcome: WriteOutcome
) -> None:
    key = stem_of(image)
    mask_file, instances_file = (folder / name / f"{key}.png" for name in ("masks", "instances"))
    if item.draw is not None:
        height, width = _size(image if item.content else item.image, limits)
        drawing = item.draw(height, width)
        mask_file.write_bytes(encode_png(drawing.mask))
        if drawing.instances is not None:
            instances_file.write_bytes(encode_png(drawing.instances))
        outcome.notes = drawing.notes
    elif item.mask is None:
        return
    elif classes.objects:
        ids = read_mask(item.mask, limits)
        _write_plane(mask_file, (ids > 0).astype("uint8"))
        _write_plane(instances_file, ids)
    elif suffix_of(item.mask) in COPIED_SUFFIXES:
        shutil.copyfile(item.mask, folder / "masks" / f"{key}{suffix_of(item.mask)}")
    elif (mask := read_mask(item.mask, limits)).ndim == 2:
        mask_file.write_bytes(encode_png(mask))
    else:  # the pages of a TIFF file are slices of a volume, which PNG does not hold
        shutil.copyfile(item.mask, folder / "masks" / f"{key}{suffix_of(item.mask)}")
    outcome.mask = True
    if item.instances is not None:
        shutil.copyfile(item.instances, folder / "instances" / f"{key}{suffix_of(item.instances)}")


def _size(image: Path, limits: DataParams) -> tuple[int, int]:
    """Height and width of a picture; DataError for a volume, for which nothing can be drawn."""
    size = read_size(image, limits)
    if len(size) != 2:
        raise DataError(
            "is a volume",
            where=image,
            found=" x ".join(map(str, size)),
            expected="a picture, for labels that are drawn",
        )
    return size[0], size[1]


def _write_plane(png: Path, plane: np.ndarray) -> None:
    """Write what was made of a mask file: a plane (H, W) as PNG, the slices of a stack (D, H, W) as pages of a TIFF file."""
    if plane.ndim == 2:
        png.write_bytes(encode_png(plane))
    else:
        png.with_suffix(".tif").write_bytes(encode_stack(plane))

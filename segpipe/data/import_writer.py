"""Writing the items of a source in the canonical layout: files are copied, labels drawn, several items at a time."""

from __future__ import annotations

import contextlib
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
    JOINED_SUFFIXES,
    VOLUME_SUFFIXES,
    Geometry,
    decode_geometry,
    decode_mask,
    encode_nifti,
    encode_png,
    encode_stack,
    is_detached,
    read_image_file,
    read_mask,
    read_size,
    stem_of,
    suffix_of,
)
from segpipe.errors import DataError
from segpipe.progress import track

COPIED_SUFFIXES = (".png", *VOLUME_SUFFIXES)
"""Suffixes of mask files that are copied; others are converted to PNG."""

_SOURCE_ERRORS = {
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.ELOOP,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EIO,
    errno.ESTALE,
}
"""Error numbers that are a fault of the file that is read. Copying names that file in faults of the target, too."""


@dataclass
class WriteOutcome:
    """The outcome of writing one item.

    image: whether the image was written.
    mask: whether the labels were written.
    skipped: (file, reason) for what was left out.
    notes: decisions made while drawing, and how often each was made.
    """

    image: bool = False
    mask: bool = False
    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)


def write_items(
    folder: Path,
    items: list[RawItem],
    keys: list[str],
    classes: SourceClasses,
    limits: DataParams,
    jobs: int,
    keep_unlabelled: bool = True,
) -> list[WriteOutcome]:
    """Write all items in threads (decoders release the interpreter's lock), at most two items per thread at a time.

    Args:
        folder: a folder with the subfolders images/, masks/ and instances/.
        items: the items.
        keys: their file names without ending.
        classes: the classes of the source.
        limits: limits on file sizes and the meaning of TIFF pages.
        jobs: the number of threads.
        keep_unlabelled: whether an image whose mask cannot be used is kept without it; otherwise it is left out with its mask.

    Returns:
        One outcome per item, in the same order. A file that cannot be read is reported there and does not stop the others.

    Raises:
        OSError: a file cannot be written.
    """

    def write(pair: tuple[RawItem, str]) -> WriteOutcome:
        outcome = _write_item(folder, *pair, classes, limits)
        if outcome.image and not outcome.mask and not keep_unlabelled:
            _remove(folder, pair[1], pair[0])
            outcome.image = False
        return outcome

    # closed here, so that no thread still writes when the caller removes the folder after an error
    with contextlib.closing(map_ahead(write, zip(items, keys, strict=True), jobs)) as written:
        return [future.result() for _, future in track(written, "importing", len(items))]


def _remove(folder: Path, key: str, item: RawItem) -> None:
    """Remove the image of an item, and what has been written of its labels."""
    (folder / "images" / f"{key}{_written_suffix(item.image)}").unlink(missing_ok=True)
    for name in ("masks", "instances"):
        for suffix in (*COPIED_SUFFIXES, ".tif", ".tiff"):
            (folder / name / f"{key}{suffix}").unlink(missing_ok=True)


def _write_item(folder: Path, item: RawItem, key: str, classes: SourceClasses, limits: DataParams) -> WriteOutcome:
    outcome = WriteOutcome()
    image = folder / "images" / f"{key}{_written_suffix(item.image)}"
    try:
        if item.content is None and is_detached(item.image):
            image.write_bytes(read_image_file(item.image, limits))
        elif item.content is None:
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


def _written_suffix(path: Path) -> str:
    """Return the suffix of the file that a file becomes: a header and its data become one file."""
    suffix = suffix_of(path)
    return JOINED_SUFFIXES.get(suffix, suffix)


def _unreadable(path: Path, error: OSError) -> tuple[str, str]:
    """Return the entry for a source file that cannot be read. A fault of the target, such as a full disk, is raised."""
    if error.errno not in _SOURCE_ERRORS or Path(str(error.filename)) != path:
        raise error
    return str(path), f"cannot be read: {error.strerror}"


def _write_labels(
    folder: Path, item: RawItem, image: Path, classes: SourceClasses, limits: DataParams, outcome: WriteOutcome
) -> None:
    key = stem_of(image)
    mask_file, instances_file = (folder / name / f"{key}.png" for name in ("masks", "instances"))
    if item.draw is not None:
        height, width = _image_size(image if item.content else item.image, limits)
        drawing = item.draw(height, width)
        mask_file.write_bytes(encode_png(drawing.mask))
        if drawing.instances is not None:
            instances_file.write_bytes(encode_png(drawing.instances))
        outcome.notes = drawing.notes
    elif item.draw_volume is not None:
        volume = item.draw_volume()
        (folder / "masks" / f"{key}.nii.gz").write_bytes(volume.content)
        if volume.instances is not None:
            (folder / "instances" / f"{key}.nii.gz").write_bytes(volume.instances)
        outcome.notes = volume.notes
    elif item.mask is None:
        return
    elif classes.from_instance_ids:
        content = read_image_file(item.mask, limits)
        ids, geometry = decode_mask(content, str(item.mask), limits), decode_geometry(content, str(item.mask))
        _write_plane(mask_file, (ids > 0).astype("uint8"), geometry)
        _write_plane(instances_file, ids, geometry)
    elif is_detached(item.mask):
        (folder / "masks" / f"{key}{_written_suffix(item.mask)}").write_bytes(read_image_file(item.mask, limits))
    elif suffix_of(item.mask) in COPIED_SUFFIXES:
        shutil.copyfile(item.mask, folder / "masks" / f"{key}{suffix_of(item.mask)}")
    elif (mask := read_mask(item.mask, limits)).ndim == 2:
        mask_file.write_bytes(encode_png(mask))
    else:  # PNG cannot store a volume
        shutil.copyfile(item.mask, folder / "masks" / f"{key}{suffix_of(item.mask)}")
    outcome.mask = True
    if item.instances is not None:
        shutil.copyfile(item.instances, folder / "instances" / f"{key}{suffix_of(item.instances)}")


def _image_size(image: Path, limits: DataParams) -> tuple[int, int]:
    """Return height and width of an image in pixels; DataError for a volume, for which labels cannot be drawn."""
    size = read_size(image, limits)
    if len(size) != 2:
        raise DataError(
            "is a volume",
            where=image,
            found=" x ".join(map(str, size)),
            expected="an image, because its labels are drawn",
        )
    return size[0], size[1]


def _write_plane(png: Path, plane: np.ndarray, geometry: Geometry | None) -> None:
    """Write a plane (H, W) as PNG; a volume (D, H, W) as NIfTI if its position is known, else as pages of a TIFF file."""
    if plane.ndim == 2:
        png.write_bytes(encode_png(plane))
    elif geometry is not None:
        png.with_name(f"{stem_of(png)}.nii.gz").write_bytes(encode_nifti(plane, geometry))
    else:
        png.with_suffix(".tif").write_bytes(encode_stack(plane))

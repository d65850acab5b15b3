"""Read the labels of one image for an exporter, and copy files."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segpipe.config import DataParams
from segpipe.data.dataset import Item
from segpipe.data.images import (
    decode_image,
    decode_mask,
    decode_orientation,
    encode_png,
    encode_tiff,
    max_bytes,
    read_aligned_mask,
    suffix_of,
)
from segpipe.errors import DataError
from segpipe.files import read_bytes
from segpipe.samples import IGNORE, UNKNOWN, ClassTable

_TURNED_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")
TURNED_IMAGES = (
    "orientation tags (EXIF): these images are stored upright, as PNG (or as TIFF, if PNG cannot store them)"
)
UNKNOWN_PIXELS = "pixels with a value that is not in the class table, now ignored"


@dataclass(frozen=True)
class ItemLabels:
    """The labels of one image.

    Attributes:
        class_ids: (H, W) or (D, H, W), uint8 class ids (or sets of classes), `IGNORE` for ignored pixels.
        instances: uint16 instance ids with the same shape; None if the image has none.
        losses: what was lost so far, with the number of cases.
    """

    class_ids: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.uint16] | None
    losses: Counter[str] = field(default_factory=Counter)


def read_labels(item: Item, classes: ClassTable, limits: DataParams) -> ItemLabels:
    """Read the mask and the instances of an image.

    Raises:
        DataError: if there is no mask, if a file cannot be read, or if mask and instances differ in size.
    """
    if item.mask is None:
        raise DataError(
            "has no mask", fix="only labelled images can be exported to this format: label it, or use --format folder"
        )
    class_ids = classes.encode(read_aligned_mask(item.mask, item.image, limits))
    losses: Counter[str] = Counter()
    if unknown := int((class_ids == UNKNOWN).sum()):
        losses[UNKNOWN_PIXELS] = unknown
        class_ids[class_ids == UNKNOWN] = IGNORE
    instances = None
    if item.instances is not None:
        instances = read_aligned_mask(item.instances, item.image, limits).astype(np.uint16, copy=False)
        if instances.shape != class_ids.shape:
            raise DataError(
                "instances and mask differ in size",
                where=item.instances,
                found=instances.shape,
                expected=class_ids.shape,
            )
    return ItemLabels(class_ids, instances, losses)


def read_2d_labels(item: Item, classes: ClassTable, limits: DataParams) -> ItemLabels:
    """Read the labels of a 2D image, as `read_labels` does. Raises DataError for a volume."""
    labels = read_labels(item, classes, limits)
    if labels.class_ids.ndim != 2:
        raise DataError(
            "is a volume, and this format stores 2D images", fix="export volumes with --format nnunet or folder"
        )
    return labels


def copy_image(item: Item, folder: Path, limits: DataParams, losses: Counter[str], key: str | None = None) -> str:
    """Write the image of an item into a folder.

    The file is copied. An image with an orientation tag is stored upright instead, since many programs ignore the tag, and its mask
    would not fit.

    Args:
        item: the item.
        folder: the folder.
        limits: limits on file sizes.
        losses: counts the images that are turned.
        key: the file name without its ending; by default the key of the item.

    Returns:
        The file name.

    Raises:
        DataError: the image cannot be read.
    """
    name = f"{key or item.key}{suffix_of(item.image)}"
    if (content := _turned_content(item.image, limits)) is None:
        copy_file(item.image, folder / name)
        return name
    losses[TURNED_IMAGES] += 1
    pixels = decode_image(content, str(item.image), limits)
    is_png = pixels.dtype in (np.uint8, np.uint16) and pixels.shape[2] in (1, 3)
    encoded = encode_png(pixels[..., 0] if pixels.shape[2] == 1 else pixels) if is_png else encode_tiff(pixels)
    name = f"{key or item.key}{'.png' if is_png else '.tif'}"
    (folder / name).write_bytes(encoded)
    return name


def copy_mask(path: Path, folder: Path, key: str, limits: DataParams) -> None:
    """Write a mask (or instances) into a folder: the file is copied, or stored upright as PNG if it has an orientation tag.

    Raises:
        DataError: the file cannot be read.
    """
    if (content := _turned_content(path, limits)) is None:
        copy_file(path, folder / f"{key}{suffix_of(path)}")
    else:
        (folder / f"{key}.png").write_bytes(encode_png(decode_mask(content, str(path), limits)))


def _turned_content(path: Path, limits: DataParams) -> bytes | None:
    """Return the bytes of a 2D image that is not stored upright; None for any other file."""
    if suffix_of(path) not in _TURNED_SUFFIXES:
        return None
    try:
        content = read_bytes(path, max_bytes(limits))
        orientation, _ = decode_orientation(content, str(path), limits)
    except DataError:  # copied as it is, or the copy names the error
        return None
    return content if orientation != 1 else None


def copy_file(source: Path, target: Path) -> None:
    """Copy a file of the dataset.

    Raises:
        DataError: if the source cannot be opened; the export then leaves the image out.
        OSError: if the target cannot be written (a full disk); this ends the export.
    """
    try:
        stream = source.open("rb")
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=source) from error
    with stream, target.open("wb") as output:
        shutil.copyfileobj(stream, output, 1 << 20)

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
from segpipe.data.images import read_aligned_mask, suffix_of
from segpipe.errors import DataError
from segpipe.samples import IGNORE, UNKNOWN, ClassTable

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


def copy_image(item: Item, folder: Path) -> str:
    """Copy the image of an item into a folder, named by its key, and return the file name. Raises DataError if it cannot be read."""
    name = f"{item.key}{suffix_of(item.image)}"
    copy_file(item.image, folder / name)
    return name


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

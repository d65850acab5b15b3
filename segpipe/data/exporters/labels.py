"""The labels of one item of the canonical layout, as exporters need them."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segpipe.config import DataParams
from segpipe.data.dataset import Item
from segpipe.data.images import read_mask, suffix_of
from segpipe.errors import DataError
from segpipe.samples import IGNORE, UNKNOWN, ClassTable

UNKNOWN_PIXELS = "pixels of a value that the class table does not know, ignored"


@dataclass(frozen=True)
class Labels:
    """class_ids: (H, W) or (D, H, W), uint8, `IGNORE` where nothing counts. instances: the same shape, uint16, None where the item
    has none. losses: what was lost on the way so far."""

    class_ids: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.uint16] | None
    losses: Counter[str] = field(default_factory=Counter)


def read_labels(item: Item, classes: ClassTable, limits: DataParams) -> Labels:
    """Read the mask and the objects of an item. Raises DataError for one without a mask, and for files that do not fit."""
    if item.mask is None:
        raise DataError("has no mask", fix="only labelled images can be written in this layout")
    class_ids = classes.encode(read_mask(item.mask, limits))
    losses: Counter[str] = Counter()
    if unknown := int((class_ids == UNKNOWN).sum()):
        losses[UNKNOWN_PIXELS] = unknown
        class_ids[class_ids == UNKNOWN] = IGNORE
    instances = None
    if item.instances is not None:
        instances = read_mask(item.instances, limits).astype(np.uint16, copy=False)
        if instances.shape != class_ids.shape:
            raise DataError(
                "objects and mask differ in size", where=item.instances, found=instances.shape, expected=class_ids.shape
            )
    return Labels(class_ids, instances, losses)


def read_flat_labels(item: Item, classes: ClassTable, limits: DataParams) -> Labels:
    """As `read_labels`, for layouts of pictures: DataError for a volume."""
    labels = read_labels(item, classes, limits)
    if labels.class_ids.ndim != 2:
        raise DataError("is a volume, and this layout holds pictures", fix="export volumes as nnunet or folder")
    return labels


def copy_image(item: Item, folder: Path) -> str:
    """Copy the image file into a folder, under the item's key; its name there. Raises DataError where it cannot be read."""
    name = f"{item.key}{suffix_of(item.image)}"
    copy_file(item.image, folder / name)
    return name


def copy_file(source: Path, target: Path) -> None:
    """Copy a file of the data. Raises DataError where it cannot be opened; a fault of the target (a full disk) stops everything."""
    try:
        stream = source.open("rb")
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=source) from error
    with stream, target.open("wb") as copy:
        shutil.copyfileobj(stream, copy, 1 << 20)

"""`mask-per-class`: images/, and for each class a folder of masks, 255 where the class is; of datasets whose classes overlap.

A mask is written where the image has the class, one of the first class at least, so that an image in which nothing is comes back
labelled. What counts nowhere is shown by masks/ignore/.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from segpipe.config import DataParams
from segpipe.data.dataset import CLASSES_FILE, SAMPLES_FILE, Dataset, Item, format_classes, format_samples
from segpipe.data.exporters.labels import copy_image, read_flat_labels
from segpipe.data.exporters.report import ExportReport
from segpipe.data.exporters.workers import map_items
from segpipe.data.images import encode_png
from segpipe.errors import DataError
from segpipe.files import safe_name, write_text
from segpipe.samples import IGNORE, ClassTable

_IGNORED = "ignore"


def write_mask_per_class(
    dataset: Dataset, out: Path, limits: DataParams, report: ExportReport, jobs: int | None
) -> None:
    """Write the images, the masks of each class, and the tables that belong to them."""
    names = dataset.classes.names[1:]
    if odd := [name for name in names if name != safe_name(name) or name.lower() == _IGNORED]:
        raise DataError(
            "is no name for a folder of masks", where=dataset.root / CLASSES_FILE, found=odd[0],
            fix="give the class another name, or choose --format coco",
        )
    for name in ("images", *(f"masks/{name}" for name in names)):
        (out / name).mkdir(parents=True)
    rows = []
    for item, losses in map_items(partial(_write, out, dataset.classes, limits), dataset.items, report, jobs):
        report.losses += losses
        if item.group or item.split:
            rows.append({"key": item.key, "group": item.group or "", "split": item.split or ""})
    write_text(out / CLASSES_FILE, format_classes(dataset.classes))
    if rows:
        write_text(out / SAMPLES_FILE, format_samples(rows))


def _write(out: Path, classes: ClassTable, limits: DataParams, item: Item) -> Counter[str]:
    labels = read_flat_labels(item, classes, limits)
    copy_image(item, out / "images")
    shown = {name: classes.labelling.where(labels.class_ids, k) for k, name in enumerate(classes.names)}
    shown = {name: mask for name, mask in shown.items() if name != classes.names[0]}
    first = classes.names[1]
    for name, mask in {**shown, _IGNORED: labels.class_ids == IGNORE}.items():
        if mask.any() or name == first:
            folder = out / "masks" / name
            folder.mkdir(exist_ok=True)
            (folder / f"{item.key}.png").write_bytes(encode_png(mask.astype(np.uint8) * 255))
    return +labels.losses

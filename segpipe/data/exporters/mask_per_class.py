"""Export format `mask-per-class`: images/, and a folder of binary masks for each class. It stores datasets whose classes overlap.

A mask is 255 at pixels of the class. It is written if the image has the class; that of the first class is always written, so that an
image without any class is imported as labelled. masks/ignore/ marks ignored pixels.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from segpipe.config import DataParams
from segpipe.data.dataset import CLASSES_FILE, SAMPLES_FILE, Dataset, Item, format_classes, format_samples
from segpipe.data.exporters.labels import copy_image, read_2d_labels
from segpipe.data.exporters.report import ExportReport
from segpipe.data.exporters.workers import map_items
from segpipe.data.images import encode_png
from segpipe.errors import DataError
from segpipe.files import safe_name, write_text
from segpipe.samples import IGNORE, ClassTable

_IGNORE_FOLDER = "ignore"


def write_mask_per_class(
    dataset: Dataset, out: Path, limits: DataParams, report: ExportReport, jobs: int | None
) -> None:
    """Write the images, the masks of each class, dataset.yaml and samples.csv.

    Raises:
        DataError: if the name of a class cannot be the name of a folder.
    """
    names = dataset.classes.names[1:]
    if invalid := [name for name in names if name != safe_name(name) or name.lower() == _IGNORE_FOLDER]:
        raise DataError(
            "a class name cannot be the name of a folder of masks",
            where=dataset.root / CLASSES_FILE,
            found=invalid[0],
            fix="rename the class, or use --format coco",
        )
    for name in ("images", *(f"masks/{name}" for name in names)):
        (out / name).mkdir(parents=True)
    rows = []
    for item, losses in map_items(partial(_write, out, dataset.classes, limits), dataset.items, report, jobs):
        report.losses += losses
        if item.group or item.split:
            rows.append({"key": item.key, "group": item.group or "", "split": item.split or ""})
    write_text(out / CLASSES_FILE, format_classes(dataset.classes, dataset.channels))
    if rows:
        write_text(out / SAMPLES_FILE, format_samples(rows))


def _write(out: Path, classes: ClassTable, limits: DataParams, item: Item) -> Counter[str]:
    labels = read_2d_labels(item, classes, limits)
    copy_image(item, out / "images", limits, labels.losses)
    masks = {name: classes.labelling.where(labels.class_ids, k) for k, name in enumerate(classes.names) if k > 0}
    masks[_IGNORE_FOLDER] = labels.class_ids == IGNORE
    first = classes.names[1]
    for name, mask in masks.items():
        if mask.any() or name == first:
            folder = out / "masks" / name
            folder.mkdir(exist_ok=True)
            (folder / f"{item.key}.png").write_bytes(encode_png(mask.astype(np.uint8) * 255))
    return +labels.losses

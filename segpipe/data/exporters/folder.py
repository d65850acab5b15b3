"""Export format `folder`: images/, masks/, instances/, dataset.yaml and samples.csv.

Files are copied; images with an orientation tag are stored upright, as in all formats.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

from segpipe.config import DataParams
from segpipe.data.dataset import CLASSES_FILE, SAMPLES_FILE, Dataset, Item, format_classes, format_samples
from segpipe.data.exporters.labels import copy_image, copy_mask
from segpipe.data.exporters.report import ExportReport
from segpipe.data.exporters.workers import map_items
from segpipe.files import write_text


def write_folder(dataset: Dataset, out: Path, limits: DataParams, report: ExportReport, jobs: int | None) -> None:
    """Copy the files of all items, and write dataset.yaml and samples.csv."""
    for name in ("images", "masks", *(["instances"] if any(item.instances for item in dataset.items) else [])):
        (out / name).mkdir()
    rows = []
    for item, losses in map_items(partial(_copy, out, limits), dataset.items, report, jobs):
        report.losses += losses
        if item.group or item.split:
            rows.append({"key": item.key, "group": item.group or "", "split": item.split or ""})
    write_text(out / CLASSES_FILE, format_classes(dataset.classes, dataset.channels))
    if rows:
        write_text(out / SAMPLES_FILE, format_samples(rows))


def _copy(out: Path, limits: DataParams, item: Item) -> Counter[str]:
    losses: Counter[str] = Counter()
    copy_image(item, out / "images", limits, losses)
    for name, path in (("masks", item.mask), ("instances", item.instances)):
        if path is not None:
            copy_mask(path, out / name, item.key, limits)
    return losses

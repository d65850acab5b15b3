"""Export format `folder`: images/, masks/, instances/, dataset.yaml and samples.csv. Files are copied, and nothing is lost."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from segpipe.config import DataParams
from segpipe.data.dataset import CLASSES_FILE, SAMPLES_FILE, Dataset, Item, format_classes, format_samples
from segpipe.data.exporters.labels import copy_file, copy_image
from segpipe.data.exporters.report import ExportReport
from segpipe.data.exporters.workers import map_items
from segpipe.data.images import suffix_of
from segpipe.files import write_text


def write_folder(dataset: Dataset, out: Path, limits: DataParams, report: ExportReport, jobs: int | None) -> None:
    """Copy the files of all items, and write dataset.yaml and samples.csv."""
    for name in ("images", "masks", *(["instances"] if any(item.instances for item in dataset.items) else [])):
        (out / name).mkdir()
    rows = []
    for item, _ in map_items(partial(_copy, out), dataset.items, report, jobs):
        if item.group or item.split:
            rows.append({"key": item.key, "group": item.group or "", "split": item.split or ""})
    write_text(out / CLASSES_FILE, format_classes(dataset.classes, dataset.channels))
    if rows:
        write_text(out / SAMPLES_FILE, format_samples(rows))


def _copy(out: Path, item: Item) -> None:
    copy_image(item, out / "images")
    for name, path in (("masks", item.mask), ("instances", item.instances)):
        if path is not None:
            copy_file(path, out / name / f"{item.key}{suffix_of(path)}")

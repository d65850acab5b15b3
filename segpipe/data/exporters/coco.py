"""Export format `coco`: images/, and annotations/instances_SPLIT.json with compressed run-length encoding, exact to the pixel.

Every instance is an annotation, and so is every region of a class without instances (with `isthing` 0, as in panoptic files of COCO).
The ignored pixels of an image are annotations with `iscrowd` 1, the same region once per category: for COCO's evaluation this means
that nothing counts there, whatever the category. The class table is stored in `info.class_table`, and the group in the `group` of the
image.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from segpipe.config import DataParams
from segpipe.data.classes import is_background
from segpipe.data.dataset import Dataset, Item
from segpipe.data.exporters.labels import ItemLabels, copy_image, read_2d_labels
from segpipe.data.exporters.report import ExportReport
from segpipe.data.exporters.workers import map_items
from segpipe.data.formats.annotations.shapes import encode_coco_runs, runs_by_value
from segpipe.samples import IGNORE, ClassTable

SPLIT_INSTANCES = "instances of several classes, split into one per class"
UNLABELLED_INSTANCE_PIXELS = "pixels of instances that the mask marks as background or ignored"


def write_coco(dataset: Dataset, out: Path, limits: DataParams, report: ExportReport, jobs: int | None) -> None:
    """Write the images, and one annotation file per split; images without a split are in instances_all.json."""
    (out / "images").mkdir()
    (out / "annotations").mkdir()
    has_instances = any(item.instances for item in dataset.items)
    background = background_of(dataset.classes)
    categories = {
        c: number for number, c in enumerate((c for c in range(len(dataset.classes)) if c != background), start=1)
    }
    header = _header(dataset.classes, categories, has_instances)
    files: dict[str, _AnnotationFile] = {}
    try:
        work = partial(_annotate, out / "images", dataset.classes, limits, categories, has_instances)
        for item, (image, annotations, losses) in map_items(work, dataset.items, report, jobs):
            split = item.split or "all"
            if split not in files:
                files[split] = _AnnotationFile(out / "annotations" / f"instances_{split}.json", header)
            files[split].add(image, annotations)
            report.losses += losses
    finally:
        for file in files.values():
            file.close()


def background_of(classes: ClassTable) -> int | None:
    """Return the class id of the background; None if no class is a background."""
    return next((c for c, name in enumerate(classes.names) if is_background(name)), None)


def _header(classes: ClassTable, categories: dict[int, int], has_instances: bool) -> dict[str, Any]:
    return {
        "info": {"description": "exported by segpipe", "class_table": classes.model_dump(mode="json")},
        "licenses": [],
        "categories": [
            {
                "id": number,
                "name": classes.names[c],
                "color": list(classes.classes[c].color),
                "isthing": int(has_instances),
            }
            for c, number in categories.items()
        ],
    }


def _annotate(
    folder: Path, classes: ClassTable, limits: DataParams, categories: dict[int, int], has_instances: bool, item: Item
) -> tuple[dict[str, Any], list[dict[str, Any]], Counter[str]]:
    """Return the COCO entry of an image, its annotations (without ids) and what was lost."""
    labels = read_2d_labels(item, classes, limits)
    if classes.overlapping:
        entry = _entry(folder, item, labels, limits)
        return entry, _annotate_sets(labels.class_ids, classes, categories), +labels.losses
    height, width = labels.class_ids.shape
    keys = labels.class_ids.astype(np.int32)  # instance id in the upper bits, class id in the lower 8
    losses = labels.losses
    if labels.instances is not None:
        labelled = np.isin(labels.class_ids, list(categories))
        losses[UNLABELLED_INSTANCE_PIXELS] += int((labels.instances[~labelled] > 0).sum())
        keys[labelled] += labels.instances[labelled].astype(np.int32) << 8
    annotations: list[dict[str, Any]] = []
    parts: Counter[int] = Counter()
    for key, counts in runs_by_value(keys).items():
        instance_id, class_id = key >> 8, key & 255
        crowd = class_id == IGNORE
        if not crowd and class_id not in categories:
            continue
        parts[instance_id] += bool(instance_id)
        shape = encode_coco_runs(counts, height, width)
        for category in categories.values() if crowd else [categories[class_id]]:
            stuff = {"isthing": 0} if has_instances and not instance_id and not crowd else {}
            annotations.append({"category_id": category, "iscrowd": int(crowd), **stuff, **shape})
    losses[SPLIT_INSTANCES] += sum(count > 1 for count in parts.values())
    return _entry(folder, item, labels, limits), annotations, +losses


def _entry(folder: Path, item: Item, labels: ItemLabels, limits: DataParams) -> dict[str, Any]:
    height, width = labels.class_ids.shape
    name = copy_image(item, folder, limits, labels.losses)
    entry: dict[str, Any] = {"file_name": name, "width": width, "height": height}
    return entry | ({"group": item.group} if item.group else {})


def _annotate_sets(sets: np.ndarray, classes: ClassTable, categories: dict[int, int]) -> list[dict[str, Any]]:
    """Return the annotations of a mask of overlapping classes: one per class, which covers all its pixels."""
    annotations = []
    ignored = sets == IGNORE
    for class_id, category in categories.items():
        for crowd, mask in enumerate((classes.labelling.where(sets, class_id), ignored)):
            if (counts := runs_by_value(mask.astype(np.int32)).get(1)) is not None:
                shape = encode_coco_runs(counts, *sets.shape)
                annotations.append({"category_id": category, "iscrowd": crowd, **shape})
    return annotations


class _AnnotationFile:
    """A COCO file that is written incrementally: only the entries of the images are kept in memory, not the annotations."""

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self._stream: IO[str] = path.open("w", encoding="utf-8")
        self._images: list[dict[str, Any]] = []
        self._annotations = 0
        self._stream.write(_json_line(header)[:-1] + ', "annotations": [')

    def add(self, image: dict[str, Any], annotations: Sequence[dict[str, Any]]) -> None:
        """Write the annotations of an image."""
        self._images.append({"id": len(self._images) + 1, **image})
        for annotation in annotations:
            self._annotations += 1
            entry = {"id": self._annotations, "image_id": len(self._images), **annotation}
            self._stream.write(("\n" if self._annotations == 1 else ",\n") + _json_line(entry))

    def close(self) -> None:
        """Write the list of images and close the file."""
        self._stream.write('\n], "images": [\n' + ",\n".join(map(_json_line, self._images)) + "\n]}\n")
        self._stream.close()


def _json_line(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False)

"""`coco`: images/, and annotations/instances_SPLIT.json with compressed run-length codes, exact to the pixel.

Every object is an annotation, and so is every region of a class without objects (`isthing` 0, as in COCO's panoptic files). Ignored
pixels of an image are annotations with `iscrowd` 1, the same region once for each category: what COCO's evaluation understands as
"nothing counts here, whatever the category". The class table stands in `info.class_table`, the group in the image's `group`.
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
from segpipe.data.exporters.labels import Labels, copy_image, read_flat_labels
from segpipe.data.exporters.report import ExportReport
from segpipe.data.exporters.workers import map_items
from segpipe.data.formats.annotations.shapes import encode_coco_runs, runs_by_value
from segpipe.samples import IGNORE, ClassTable

CUT = "objects of several classes, cut into one for each class"
GROUNDED = "pixels of objects where the mask says background or ignore"


def write_coco(dataset: Dataset, out: Path, limits: DataParams, report: ExportReport, jobs: int | None) -> None:
    """Write the images and a file of annotations for each split; those without a split come in instances_all.json."""
    (out / "images").mkdir()
    (out / "annotations").mkdir()
    things = any(item.instances for item in dataset.items)
    ground = background_of(dataset.classes)
    categories = {
        c: number for number, c in enumerate((c for c in range(len(dataset.classes)) if c != ground), start=1)
    }
    head = _head(dataset.classes, categories, things)
    files: dict[str, _AnnotationFile] = {}
    try:
        work = partial(_annotate, out / "images", dataset.classes, limits, categories, things)
        for item, (image, annotations, losses) in map_items(work, dataset.items, report, jobs):
            split = item.split or "all"
            if split not in files:
                files[split] = _AnnotationFile(out / "annotations" / f"instances_{split}.json", head)
            files[split].add(image, annotations)
            report.losses += losses
    finally:
        for file in files.values():
            file.close()


def background_of(classes: ClassTable) -> int | None:
    """The class id of the background; None where every class is something."""
    return next((c for c, name in enumerate(classes.names) if is_background(name)), None)


def _head(classes: ClassTable, categories: dict[int, int], things: bool) -> dict[str, Any]:
    return {
        "info": {"description": "exported by segpipe", "class_table": classes.model_dump(mode="json")},
        "licenses": [],
        "categories": [
            {"id": number, "name": classes.names[c], "color": list(classes.classes[c].color), "isthing": int(things)}
            for c, number in categories.items()
        ],
    }


def _annotate(
    folder: Path, classes: ClassTable, limits: DataParams, categories: dict[int, int], things: bool, item: Item
) -> tuple[dict[str, Any], list[dict[str, Any]], Counter[str]]:
    """The image's entry, its annotations (ids come later) and what was lost."""
    labels = read_flat_labels(item, classes, limits)
    if classes.overlapping:
        return _entry(folder, item, labels), _annotate_sets(labels.class_ids, classes, categories), +labels.losses
    height, width = labels.class_ids.shape
    keys = labels.class_ids.astype(np.int32)
    losses = labels.losses
    if labels.instances is not None:
        counted = np.isin(labels.class_ids, list(categories))
        losses[GROUNDED] += int((labels.instances[~counted] > 0).sum())
        keys[counted] += labels.instances[counted].astype(np.int32) << 8
    annotations: list[dict[str, Any]] = []
    parts: Counter[int] = Counter()
    for key, counts in runs_by_value(keys).items():
        number, class_id = key >> 8, key & 255
        crowd = class_id == IGNORE
        if not crowd and class_id not in categories:
            continue
        parts[number] += bool(number)
        shape = encode_coco_runs(counts, height, width)
        for category in categories.values() if crowd else [categories[class_id]]:
            stuff = {"isthing": 0} if things and not number and not crowd else {}
            annotations.append({"category_id": category, "iscrowd": int(crowd), **stuff, **shape})
    losses[CUT] += sum(count > 1 for count in parts.values())
    return _entry(folder, item, labels), annotations, +losses


def _entry(folder: Path, item: Item, labels: Labels) -> dict[str, Any]:
    height, width = labels.class_ids.shape
    entry: dict[str, Any] = {"file_name": copy_image(item, folder), "width": width, "height": height}
    return entry | ({"group": item.group} if item.group else {})


def _annotate_sets(sets: np.ndarray, classes: ClassTable, categories: dict[int, int]) -> list[dict[str, Any]]:
    """The annotations of a mask of overlapping classes: one for each class that is there, wherever it is."""
    annotations = []
    ignored = sets == IGNORE
    for class_id, category in categories.items():
        for crowd, mask in enumerate((classes.labelling.where(sets, class_id), ignored)):
            if (counts := runs_by_value(mask.astype(np.int32)).get(1)) is not None:
                shape = encode_coco_runs(counts, *sets.shape)
                annotations.append({"category_id": category, "iscrowd": crowd, **shape})
    return annotations


class _AnnotationFile:
    """A COCO file that is written as it comes: only the entries of the images are held, and nothing of their annotations."""

    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        self._stream: IO[str] = path.open("w", encoding="utf-8")
        self._images: list[dict[str, Any]] = []
        self._annotations = 0
        self._stream.write(_line(head)[:-1] + ', "annotations": [')

    def add(self, image: dict[str, Any], annotations: Sequence[dict[str, Any]]) -> None:
        """Write an image's annotations."""
        self._images.append({"id": len(self._images) + 1, **image})
        for annotation in annotations:
            self._annotations += 1
            entry = {"id": self._annotations, "image_id": len(self._images), **annotation}
            self._stream.write(("\n" if self._annotations == 1 else ",\n") + _line(entry))

    def close(self) -> None:
        """Write the list of images and end the file."""
        self._stream.write('\n], "images": [\n' + ",\n".join(map(_line, self._images)) + "\n]}\n")
        self._stream.close()


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False)

"""`label-studio`: the JSON and JSON-MIN exports of Label Studio, with the images in any folder of the source.

Labels are classes, in name order. A task's image is the file of the source whose path ends like the name in the export (a path, a URL,
or `?d=` of local files), with or without the prefix of uploads (`a1b2c3d4-`). Of several annotations of a task, the ground truth counts,
or else the latest one. An image is left out if a region of it cannot be read, because its pixels would otherwise be background. Tasks
without an annotation are unlabelled images; predictions are not read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segpipe.data.formats.annotations.categories import Category, is_background_category, number_classes
from segpipe.data.formats.annotations.json_document import peek, read_json
from segpipe.data.formats.annotations.label_studio_shapes import Region, is_region, parse_region
from segpipe.data.formats.annotations.listed_images import ImageIndex
from segpipe.data.formats.annotations.painter import CLIPPED, Annotation, Painter, StoredOrientationPainter
from segpipe.data.formats.annotations.shapes import Polygons, Shape, lies_outside, reaches_out
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import RawItem, ReadOptions, ReadResult
from segpipe.data.images import stem_of
from segpipe.data.images.bounds import Bounds
from segpipe.errors import ConfigError, DataError

_MAX_JSON_BYTES = 1 << 30
_MAX_FILES_CHECKED = 5
"""JSON files of a folder that recognition looks at."""
_FULL_KEYS = ((b'"annotations"', b'"result"'), (b'"completions"', b'"result"'))
_MIN_KEYS = (b'"annotation_id"', b'"annotator"')
_MIN_FIELDS = ("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement")
_SEVERAL = "tasks with several annotations, of which the ground truth or the latest one is used"


@dataclass
class Task:
    """An image of a project, and what was said about it.

    number: the id of the task.
    names: texts that may name its image, the most likely first.
    annotations: its annotations: for each its entries, and the ids of key points and the like are not checked yet.
    predictions: whether it has predictions.
    """

    number: Any
    names: list[str]
    annotations: list[list[dict[str, Any]]] = field(default_factory=list)
    ranks: list[tuple[bool, str, int]] = field(default_factory=list)
    predictions: bool = False

    def add(self, entries: list[dict[str, Any]], annotation: dict[str, Any], number: object) -> None:
        """Add an annotation."""
        updated = str(annotation.get("updated_at") or annotation.get("created_at") or "")
        self.annotations.append(entries)
        self.ranks.append((annotation.get("ground_truth") is True, updated, number if type(number) is int else 0))

    def best(self) -> list[dict[str, Any]] | None:
        """Return the entries of the annotation that counts; None if there is none."""
        order = sorted(range(len(self.ranks)), key=lambda index: self.ranks[index])
        return self.annotations[order[-1]] if order else None


def find_exports(probe: SourceProbe) -> list[Path]:
    """Return the JSON files that look like exports of Label Studio: those in the source itself, otherwise those one folder down."""
    for folders in ([probe.source], probe.listing.folders(probe.source)):
        files = [path for folder in folders for path in probe.listing.matching(folder, "*.json")[:_MAX_FILES_CHECKED]]
        if exports := [path for path in files if _looks_like_export(path)]:
            return exports
    return []


def _looks_like_export(path: Path) -> bool:
    content = peek(path)
    is_known = any(all(key in content for key in keys) for keys in (*_FULL_KEYS, _MIN_KEYS))
    return content.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"[" and is_known


def read_tasks(path: Path) -> list[Task]:
    """Return the tasks of an export, JSON or JSON-MIN.

    Raises:
        DataError: it is no such export.
    """
    content = read_json(path, _MAX_JSON_BYTES)
    if not isinstance(content, list):
        raise DataError("is not an export of Label Studio", where=path, expected="a JSON list of tasks")
    tasks: dict[str, Task] = {}
    for index, raw in enumerate(content):
        if not isinstance(raw, dict):
            continue
        number = raw.get("id", index)
        data = raw["data"] if isinstance(raw.get("data"), dict) else raw
        task = tasks.setdefault(repr(number), Task(number, _image_names(data, raw)))
        if data is raw:
            if raw.get("annotation_id") is not None:
                task.add(list(_minimal_entries(raw)), raw, raw["annotation_id"])
            continue
        task.predictions = task.predictions or bool(raw.get("predictions"))
        annotations = raw.get("annotations") or raw.get("completions")
        for annotation in annotations if isinstance(annotations, list) else []:
            if isinstance(annotation, dict) and not annotation.get("was_cancelled"):
                result = annotation.get("result")
                entries = [entry for entry in result if isinstance(entry, dict)] if isinstance(result, list) else []
                task.add(entries, annotation, annotation.get("id"))
    return list(tasks.values())


def _image_names(data: dict[str, Any], task: dict[str, Any]) -> list[str]:
    """Return the texts of a task that may name its image, those called `image` first."""
    names = [(key, value) for key, value in data.items() if isinstance(value, str) and key not in _MIN_FIELDS]
    texts = [value for _, value in sorted(names, key=lambda pair: not pair[0].lower().startswith(("image", "img")))]
    upload = task.get("file_upload")
    return texts + ([upload] if isinstance(upload, str) else [])


def _minimal_entries(raw: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the entries of a task of JSON-MIN as those of the full export."""
    for name, part in raw.items():
        for value in part if isinstance(part, list) else []:
            if isinstance(value, dict) and "original_width" in value:
                kind = next((key for key in value if key.endswith("labels")), "")
                sizes = {key: value.get(key) for key in ("original_width", "original_height", "image_rotation")}
                yield {"from_name": name, "type": kind, "value": value, **sizes}


def recognise_label_studio(probe: SourceProbe) -> str | None:
    """Return why the source has this layout: a JSON file with a list of tasks of Label Studio. None otherwise."""
    names = [path.relative_to(probe.source).as_posix() for path in find_exports(probe)]
    return f"{names[0]} with tasks and annotations of Label Studio" if names else None


def read_label_studio(probe: SourceProbe, options: ReadOptions) -> ReadResult:
    """Read the exports of a source. Images with a region that cannot be read are left out with the reason.

    Args:
        probe: the source.
        options: `masks` names one export.

    Raises:
        DataError: there is no export, two of them hold the same image, or no region can be used.
        ConfigError: `masks` does not exist.
    """
    source = probe.source.resolve()
    files = [source / path.relative_to(probe.source) for path in find_exports(probe)]
    if options.masks:
        files = [source / options.masks]
        if not files[0].is_file():
            raise ConfigError(
                "no such file", where="--masks", found=options.masks, expected="an export of Label Studio"
            )
    if not files:
        raise DataError(
            "no export of Label Studio",
            where=source,
            expected="the JSON or JSON-MIN export of a project",
            fix="add it, or choose another --format",
        )
    result = ReadResult([], classes_from="the labels of the regions", used_files={*files})
    reader = _TaskReader(ImageIndex(probe), options, result)
    for path in files:
        for task in read_tasks(path):
            reader.add(task, path)
    labels = sorted({label for image in reader.images for label, _ in image.regions})
    if not any(not is_background_category(label) for label in labels):
        raise DataError(
            "no region can be used",
            where=files[0],
            found=": ".join(result.skipped[0]) if result.skipped else f"{len(reader.images)} tasks without regions",
            expected="polygons, rectangles, ellipses or brushes with labels",
            fix="label regions in Label Studio and export again, or choose another --format",
        )
    ids = {label: 0 if is_background_category(label) else number for number, label in enumerate(labels, start=1)}
    numbering = number_classes([Category(number, label) for label, number in ids.items()], False, files[0])
    result.classes = numbering.classes
    for image in reader.images:
        annotations = [
            Annotation(shape, ids[label], is_instance=not is_background_category(label))
            for label, shape in image.regions
        ]
        painter = Painter(annotations, numbering, image.size, True, str(image.path))
        draw = StoredOrientationPainter(painter, image.path, options.limits)
        name = (image.path.relative_to(source).parent / stem_of(image.path)).as_posix()
        points = sorted(set(labels) & set(image.labels_without_area))
        if points:
            reason = f"has key points of the class {points[0]}, which have no area; the image is not used"
            result.skipped.append((name, reason))
        is_usable = image.is_labelled and not points
        result.items.append(RawItem(name, image.path, draw=draw if is_usable else None))
    result.notes += [f"{text}: {count}" for text, count in reader.counts.items() if count]
    return result


@dataclass
class _LabelledImage:
    """An image with the labels and shapes of its regions; `is_labelled` is False if it has no annotation, or an unusable one."""

    path: Path
    size: tuple[int, int] | None = None
    regions: list[tuple[str, Shape]] = field(default_factory=list)
    labels_without_area: list[str] = field(default_factory=list)
    is_labelled: bool = True


@dataclass
class _TaskReader:
    """Collects the images of tasks; what is left out is added to `result`."""

    index: ImageIndex
    options: ReadOptions
    result: ReadResult
    images: list[_LabelledImage] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    files_by_image: dict[Path, tuple[Path, Any]] = field(default_factory=dict)

    def add(self, task: Task, path: Path) -> None:
        """Add the image of one task of an export."""
        name = f"{path.name}: task {task.number}"
        try:
            image = _LabelledImage(self._find_image(task))
        except DataError as error:
            self.result.skipped.append((name, str(error)))
            return
        first_file, first_task = self.files_by_image.setdefault(image.path, (path, task.number))
        if first_file != path:
            raise DataError(
                "two exports hold the same image",
                where=path,
                found=f"{image.path.name}, as in {first_file.name}",
                expected="one export",
                fix=f"name the right one: --masks {path.relative_to(self.index.source).as_posix()}",
            )
        if first_task != task.number:
            self.result.skipped.append((name, f"shows {image.path.name}, as task {first_task} does"))
            return
        entries = task.best()
        self.counts[_SEVERAL] += len(task.annotations) > 1
        if entries is None:
            self.counts["tasks without an annotation (predictions are not read)"] += 1
            image.is_labelled = False
        else:
            self._add_regions(image, entries, name)
            self.counts["images submitted without a region, all background"] += image.is_labelled and not image.regions
        self.images.append(image)

    def _find_image(self, task: Task) -> Path:
        for text in task.names:
            if image := self.index.find(text):
                return image
        raise DataError(
            "names a missing image",
            found=(task.names[0][:80] if task.names else "no name"),
            expected="a file in the source with this name",
            fix="copy the images of the project into the source",
        )

    def _add_regions(self, image: _LabelledImage, entries: list[dict[str, Any]], name: str) -> None:
        regions = [entry for entry in entries if is_region(entry)]
        self.counts["answers that mark no region"] += len(entries) - len(regions)
        parsed: list[Region] = []
        for number, entry in enumerate(regions):
            try:
                image.size = self._size(entry, image, regions)
                region = parse_region(entry, *image.size)
                if isinstance(region.area, Polygons) and not lies_outside(region.area, *image.size):
                    self.counts[CLIPPED] += reaches_out(region.area, *image.size)
                parsed.append(region)
            except DataError as error:
                self.result.skipped.append((f"{name}: region {number}", str(error)))
                self.counts["images not used, because one of their regions cannot be read"] += image.is_labelled
                image.is_labelled = False
        labelled = {region.key for region in parsed if region.label is not None}
        for region in parsed:
            if region.label is None and region.key not in labelled:
                self.result.skipped.append((name, "has a region without a label; the image is not used"))
                image.is_labelled = False
            elif region.label is not None and region.area is None:
                image.labels_without_area.append(region.label)
                self.counts[f"key points labelled {region.label}, which have no area"] += 1
            elif region.label is not None and region.area is not None:
                image.regions.append((region.label, region.area))

    def _size(self, entry: dict[str, Any], image: _LabelledImage, regions: list[dict[str, Any]]) -> tuple[int, int]:
        """Return (height, width) of the image that a region was drawn on."""
        height, width = entry.get("original_height"), entry.get("original_width")
        if type(height) is not int or type(width) is not int:
            raise DataError("has no image size", found=f"original_width {width}, original_height {height}")
        Bounds.from_limits(self.options.limits).check(image.path.name, height, width)
        if image.size not in (None, (height, width)) or len({repr(other.get("to_name")) for other in regions}) > 1:
            raise DataError("the task shows several images", fix="make one task for each image")
        return height, width

"""`label-studio-masks`: the masks of brushes that Label Studio exports as PNG or NumPy files, one for each region.

```
SRC/.../task-1-annotation-2-by-1-tag-tree-0.png     task, annotation, annotator, tag, label, number of the region
SRC/.../*.png                                       the images, with any names
SRC/*.csv                                           the CSV export of the same project (`id` and the name of the image)
```

No mask names its image. A CSV or TSV export of the project says which task shows which image; with a JSON export, the layout
`label-studio` reads everything from that file. Without either, tasks and images are paired in their order, which only the user can
confirm. Of several annotations of a task, the latest one counts.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from segpipe.config import DataParams
from segpipe.data.formats.annotations.categories import Category, Numbering, number_classes
from segpipe.data.formats.annotations.label_studio_json import find_exports, read_tasks
from segpipe.data.formats.annotations.listed_images import UPLOAD_PREFIX, ImageIndex
from segpipe.data.formats.annotations.painter import Annotation, Painter
from segpipe.data.formats.annotations.shapes import runs_of_region
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import Drawing, RawItem, ReadOptions, ReadResult, check_size
from segpipe.data.images import is_image_file, read_image, read_size, stem_of
from segpipe.errors import DataError
from segpipe.files import read_bytes

_NAME = re.compile(r"task-(\d+)-annotation-(\d+)-by-([^-]*)-(.+)-(\d+)", re.ASCII)
_MAX_TABLE_BYTES = 1 << 27
_MAX_SIZES_COMPARED = 50
_MAX_FOLDERS_CHECKED = 20
_ADVICE = "add the export of the same project as CSV, JSON or JSON-MIN to the folder"


@dataclass(frozen=True)
class BrushFile:
    """A mask file, as its name describes it. `words` are the tag and the label, which dashes divide."""

    path: Path
    task: int
    annotation: int
    words: tuple[str, ...]


def recognise_label_studio_masks(probe: SourceProbe) -> str | None:
    """Return why the source has this layout: masks with the names of an export, and images. None otherwise."""
    if not _has_brushes(probe) or find_exports(probe) or _problem(probe) is not None:
        return None
    brushes, _ = _files(probe)
    return (
        f"{brushes[0].path.relative_to(probe.source).as_posix()}, named as Label Studio names masks of brushes"
        if brushes
        else None
    )


def explain_label_studio_masks(probe: SourceProbe) -> DataError | None:
    """Return the error for masks of an export that cannot be paired with images; None if they can, or if there are none."""
    return _problem(probe)


def doubt_label_studio_masks(probe: SourceProbe) -> str | None:
    """Return what the user must confirm: the pairing by order, if no table says which task shows which image."""
    if _image_names(probe, ReadResult([])):
        return None
    brushes, images = _files(probe)
    pairs = _pairs_in_order(brushes, images)
    first, last = list(pairs.items())[:: max(1, len(pairs) - 1)][:2] if len(pairs) > 1 else [*pairs.items()] * 2
    names = " ... ".join(f"task {task} with {image.name}" for task, image in dict([first, last]).items())
    return f"no file says which task shows which image; in their order: {names}. To be sure, {_ADVICE}"


def read_label_studio_masks(probe: SourceProbe, options: ReadOptions) -> ReadResult:
    """Read the layout. Images without a mask are unlabelled.

    Raises:
        DataError: there are no such masks, or they cannot be paired with images.
    """
    if error := _problem(probe):
        raise error
    brushes, images = _files(probe)
    if not brushes:
        raise DataError(
            "no masks of brushes",
            where=probe.source,
            expected="files such as task-1-annotation-2-by-1-tag-tree-0.png",
            fix="choose another --format",
        )
    result = ReadResult([], classes_from="the names of the masks")
    images_by_task = _images_of_tasks(probe, brushes, images, result)
    labels, notes = _labels(brushes)
    result.notes += notes
    names = sorted(set(labels.values()))
    ids = {name: number for number, name in enumerate(names, start=1)}
    numbering = number_classes([Category(ids[name], name) for name in names], False, probe.source)
    result.classes = numbering.classes
    latest = {task: max(b.annotation for b in brushes if b.task == task) for task in {b.task for b in brushes}}
    older = [brush for brush in brushes if brush.annotation != latest[brush.task]]
    if older:
        result.notes.append(f"masks of earlier annotations of a task, not used: {len(older)}")
    masks: dict[Path, list[tuple[Path, int]]] = {}
    for brush in brushes:
        if brush.annotation == latest[brush.task] and brush.task in images_by_task:
            masks.setdefault(images_by_task[brush.task], []).append((brush.path, ids[labels[brush.words]]))
    for image in images:
        name = (image.relative_to(probe.source).parent / stem_of(image)).as_posix()
        draw = BrushMasks(tuple(masks[image]), numbering, image, options.limits) if image in masks else None
        result.items.append(RawItem(name, image, draw=draw))
    return result


@dataclass(frozen=True)
class BrushMasks:
    """Draws the regions of one image from their mask files (a `segpipe.data.formats.source.Draw`).

    masks: the files, each with the id of its class. A pixel belongs to a region if its value is not 0, as in Label Studio's COCO export.
    """

    masks: tuple[tuple[Path, int], ...]
    numbering: Numbering
    image: Path
    limits: DataParams

    def __call__(self, height: int, width: int) -> Drawing:
        """Return class values and instance ids, (height, width).

        Raises:
            DataError: a mask differs in size from its image or cannot be read.
        """
        annotations = []
        for path, category in self.masks:
            is_set = read_image(path, self.limits).max(axis=-1) > 0
            check_size(path, is_set, height, width)
            annotations.append(Annotation(runs_of_region(is_set, 0, 0, height, width), category))
        return Painter(annotations, self.numbering, (height, width), True, str(self.image))(height, width)


def _files(probe: SourceProbe) -> tuple[list[BrushFile], list[Path]]:
    """Return the masks and the other image files of a source."""
    brushes: list[BrushFile] = []
    images: list[Path] = []
    for path in probe.listing.files_below(probe.source):
        if is_image_file(path):
            if match := _NAME.fullmatch(stem_of(path)):
                brushes.append(BrushFile(path, int(match[1]), int(match[2]), tuple(match[4].split("-"))))
            else:
                images.append(path)
    return brushes, images


def _problem(probe: SourceProbe) -> DataError | None:
    """Return why the masks of a source cannot be paired with images; None if they can, or if there are none."""
    brushes, images = _files(probe) if _has_brushes(probe) else ([], [])
    if not brushes:
        return None
    tasks = {brush.task for brush in brushes}
    if not images:
        return DataError("has masks of Label Studio, but no images", where=probe.source, fix="add the images")
    if _image_names(probe, ReadResult([])):
        return None
    if len(tasks) != len(images):
        return _unpaired(probe, f"masks of {len(tasks)} tasks, and {len(images)} images")
    by_task = {brush.task: brush.path for brush in reversed(brushes)}
    for task, image in list(_pairs_in_order(brushes, images).items())[:_MAX_SIZES_COMPARED]:
        try:
            sizes = [read_size(path, DataParams()) for path in (by_task[task], image)]
        except DataError:  # the import reports it
            continue
        if sizes[0] != sizes[1]:
            names = f"{by_task[task].name} and {image.name}"
            return _unpaired(probe, f"in their order, masks and images differ in size ({names})")
    return None


def _unpaired(probe: SourceProbe, found: str) -> DataError:
    return DataError(
        "cannot tell which mask belongs to which image",
        where=probe.source,
        found=found,
        expected="a list that says which task shows which image",
        fix=_ADVICE,
    )


def _has_brushes(probe: SourceProbe) -> bool:
    """Return whether one of the first folders holds a mask of an export, without listing all of the source."""
    folders = probe.listing.folders(probe.source)[:_MAX_FOLDERS_CHECKED]
    inner = [child for folder in folders for child in probe.listing.folders(folder)[:_MAX_FOLDERS_CHECKED]]
    folders = [probe.source, *folders, *inner]
    return any(probe.listing.matching(folder, "task-*-annotation-*-by-*") for folder in folders)


def _pairs_in_order(brushes: list[BrushFile], images: list[Path]) -> dict[int, Path]:
    """Return {task: image} in the order of the numbers of tasks, and of the names of images without the prefix of uploads."""
    tasks = sorted({brush.task for brush in brushes})
    return dict(zip(tasks, sorted(images, key=_natural_order), strict=False))


def _natural_order(path: Path) -> tuple[list[tuple[int, str]], str]:
    name = UPLOAD_PREFIX.sub("", path.name, count=1)
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name, flags=re.ASCII)
    ], path.name


def _images_of_tasks(
    probe: SourceProbe, brushes: list[BrushFile], images: list[Path], result: ReadResult
) -> dict[int, Path]:
    """Return the image of each task, as a table says or in their order; the result gets what is left out."""
    names = _image_names(probe, result)
    if not names:
        result.notes.append("tasks and images are paired in their order: no table says which task shows which image")
        return _pairs_in_order(brushes, images)
    index = ImageIndex(probe)
    by_real_path = {os.path.realpath(image): image for image in images}
    images_by_task: dict[int, Path] = {}
    for task in sorted({brush.task for brush in brushes}):
        example = next(brush.path.name for brush in brushes if brush.task == task)
        try:
            paths = [path for text in names.get(task, []) if (path := index.find(text))]
        except DataError as error:
            result.skipped.append((example, str(error)))
            continue
        image = by_real_path.get(str(paths[0])) if paths else None
        if image is None or image in images_by_task.values():
            reason = "the image of its task is missing" if image is None else "another task shows the same image"
            result.skipped.append((example, reason))
        else:
            images_by_task[task] = image
    return images_by_task


def _image_names(probe: SourceProbe, result: ReadResult) -> dict[int, list[str]]:
    """Return the texts that may name the image of each task, from another export in the source; none without one."""
    for path in find_exports(probe):
        result.used_files.add(path)
        return {task.number: task.names for task in read_tasks(path)}
    for pattern in ("*.csv", "*.tsv"):
        for path in probe.listing.matching(probe.source, pattern):
            try:
                lines = read_bytes(path, _MAX_TABLE_BYTES).decode("utf-8-sig").splitlines()
                rows = list(csv.DictReader(lines, delimiter="\t" if pattern == "*.tsv" else ","))
            except (DataError, UnicodeDecodeError, csv.Error):
                continue
            if rows and {"id", "annotation_id"} <= rows[0].keys():
                result.used_files.add(path)
                return {
                    int(row["id"]): [
                        text
                        for name, text in row.items()
                        if isinstance(text, str) and name not in ("id", "annotation_id")
                    ]
                    for row in rows
                    if (row["id"] or "").isdecimal()
                }
    return {}


def _labels(brushes: list[BrushFile]) -> tuple[dict[tuple[str, ...], str], list[str]]:
    """Return the label that the words of each mask stand for, and notes. Words that all masks share belong to the name of the tag."""
    words = sorted({brush.words for brush in brushes})
    shared = 1  # the first word is that of a tag
    while len(words) > 1 and all(len(parts) > shared + 1 and parts[:shared] == words[0][:shared] for parts in words):
        if len({parts[shared] for parts in words}) > 1:
            break
        shared += 1
    labels = {parts: "-".join(parts[shared:]) or parts[0] for parts in words}
    tags = Counter("-".join(parts[:shared]) for parts in words if len(parts) > 1)
    notes = (
        [f"masks of the tags {', '.join(sorted(tags))}: a label of several tags is one class"] if len(tags) > 1 else []
    )
    return labels, notes

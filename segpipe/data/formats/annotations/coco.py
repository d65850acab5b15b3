"""`coco`: images and a JSON of `images`, `annotations` and `categories`; one JSON, or one for each split.

```
SRC/annotations/instances_train2017.json  SRC/train2017/...          as published by COCO
SRC/train/_annotations.coco.json          SRC/train/...              as exported by Roboflow
SRC/instances.json                        SRC/images/...             one file next to the images
```

An annotation with `iscrowd` marks ignored pixels. `segpipe data export --format coco` adds what COCO cannot express, and this reader
uses it: `info.class_table` (the class table with its file values), `isthing` 0 (a region, not an instance), and `group`.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from segpipe.data.formats.annotations.categories import (
    Category,
    Numbering,
    as_overlapping,
    number_classes,
    without_empty_parent,
)
from segpipe.data.formats.annotations.coco_entries import Entries, ImageEntry, SizeOf, parse_entries
from segpipe.data.formats.annotations.json_document import peek, read_document
from segpipe.data.formats.annotations.listed_images import find_listed
from segpipe.data.formats.annotations.painter import Painter
from segpipe.data.formats.folder_names import is_part
from segpipe.data.formats.listing import FolderListing
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import RawItem, ReadOptions, ReadResult
from segpipe.data.images import is_image_file, read_size, stem_of
from segpipe.errors import ConfigError, DataError
from segpipe.samples import ClassTable

MAX_JSON_BYTES = 1 << 30
_LISTS = (b'"images"', b'"annotations"', b'"categories"')
_FILE_PATTERNS = ("instances*.json", "_annotations.coco.json", "*.json")
"""If a folder holds several JSON files, those that match the first of these patterns that any of them matches."""

_SPLIT_WORD = re.compile(r"(?<![a-z])(train|val|test)(?:ing|id|idation)?(?![a-z])")


def recognise_coco(probe: SourceProbe) -> str | None:
    """Return why the source has this layout: a JSON file with the three lists. None otherwise."""
    names = [path.relative_to(probe.source).as_posix() for path in _annotation_files(probe)]
    return f"{names[0]} with `images`, `annotations`, `categories`" if names else None


def read_coco(probe: SourceProbe, options: ReadOptions) -> ReadResult:
    """Read all annotation files of a source. Broken images and annotations are left out with the reason.

    Args:
        probe: the source.
        options: `masks` names one annotation file, `images` the folder of images; `overlapping` is used.

    Raises:
        DataError: a file is not COCO; categories contradict each other; no annotation is usable; the files lie in folders of several
            datasets; or files that are not those of different splits list the same image.
        ConfigError: `masks` or `images` does not exist.
    """
    source = probe.source.resolve()
    if options.masks:
        paths = [_named_file(source, options.masks)]
    else:
        paths = [source / path.relative_to(probe.source) for path in _annotation_files(probe)]
    if not paths:
        raise DataError(
            "no COCO annotations",
            where=source,
            expected="a JSON with images, annotations and categories in it",
            fix="name it (--masks annotations/instances_train.json), or choose another --format",
        )
    _check_one_dataset(source, paths)
    files: list[tuple[Path, Entries]] = []
    table: ClassTable | None = None
    for path in paths:
        document = read_document(path, MAX_JSON_BYTES)
        entries = parse_entries(document, path, _size_reader(source, path, options))
        if not any(image.annotations for image in entries.images) and document["annotations"]:
            name, reason = entries.skipped[0]
            raise DataError("no annotation can be used", where=path, found=f"{name}: {reason}")
        table = table or _exported_table(document)
        files.append((path, entries))
    numbering = _number(files, table)
    if options.overlapping:
        numbering = as_overlapping(numbering)
    result = ReadResult([], numbering.classes, notes=list(numbering.notes), used_files={*paths})
    annotations = [a for _, entries in files for image in entries.images for a in image.annotations]
    has_instances = any(a.is_instance for a in annotations) and not numbering.classes.overlapping
    collector = _ItemCollector(source, result, numbering, has_instances, options.images, probe.listing)
    counts: Counter[str] = Counter()
    for path, entries in files:
        name = path.relative_to(source).as_posix() if path.is_relative_to(source) else path.name
        result.skipped += [(f"{name}: {entry}", reason) for entry, reason in entries.skipped]
        collector.add(path, entries.images)
        total = sum(len(image.annotations) for image in entries.images)
        result.notes.append(f"{name}: {len(entries.images)} images, {total} annotations")
        counts += entries.counts
    result.notes += [f"{text}: {count}" for text, count in counts.items() if count]
    return result


def _size_reader(source: Path, path: Path, options: ReadOptions) -> SizeOf:
    """Return a function that reads (height, width) of an image that an annotation file names."""
    root = source if options.images is None else _named_folder(source, options.images)
    folders = _image_folders(source, path) if options.images is None else [root]

    def size_of(name: str) -> tuple[int, int]:
        size = read_size(find_listed(root, folders, name, path), options.limits)
        return size[-2], size[-1]

    return size_of


def _annotation_files(probe: SourceProbe) -> list[Path]:
    """Return the JSON files that look like COCO, in name order: those in the source itself, otherwise the nearest further down.

    More than one folder down, they must lie in folders that are named as parts of a dataset (`annotations/LIVECell/`).
    """
    listing, inner = probe.listing, probe.listing.folders(probe.source)
    wrapped = [child for folder in inner for child in listing.folders(folder)] if len(inner) == 1 else inner
    parts = [path for folder in {*inner, *wrapped} if is_part(folder.name) for path in listing.folders(folder)]
    for folders in ([probe.source], inner, wrapped, sorted(parts)):
        files = [path for folder in folders for path in probe.listing.matching(folder, "*.json")]
        for pattern in _FILE_PATTERNS:
            fitting = [path for path in files if path.match(pattern) and _looks_like_coco(path)]
            if fitting:
                return fitting
    return []


def _looks_like_coco(path: Path) -> bool:
    """Return whether the beginning and the end of a file are COCO's. Captions have no categories; panoptic files have segments."""
    content = peek(path)
    lists = [name for name in _LISTS if name in content]
    return (
        content.lstrip()[:1] == b"{"
        and b'"categories"' in lists
        and len(lists) > 1
        and b'"segments_info"' not in content
    )


def _check_one_dataset(source: Path, paths: list[Path]) -> None:
    """Raise DataError if annotation files lie in several folders that are not named as parts of one dataset."""
    first_files = {path.parent: path for path in reversed(paths)}
    if len(first_files) > 1 and not all(is_part(folder.name) for folder in first_files):
        folder = min(first_files)
        raise DataError(
            "COCO annotations in the folders of several datasets",
            where=source,
            found=", ".join(sorted(folder.name for folder in first_files)),
            fix=f"import one of them ({folder}), or name one file (--masks {first_files[folder].relative_to(source)})",
        )


def _exported_table(document: dict[str, object]) -> ClassTable | None:
    """Return the class table that segpipe's own export writes into `info`; None if there is none, or it is not valid."""
    info = document.get("info")
    raw = info.get("class_table") if isinstance(info, dict) else None
    try:
        return ClassTable.model_validate(raw) if raw is not None else None
    except ValidationError:
        return None  # the categories hold the same, except for the file values


def _number(files: list[tuple[Path, Entries]], table: ClassTable | None) -> Numbering:
    """Return the file values of the categories of all files, as in `table` if it fits them."""
    categories: dict[int, Category] = {}
    for path, entries in files:
        for category in entries.categories:
            other = categories.setdefault(category.id, category)
            if other.name != category.name:
                raise DataError(
                    "a category id has two meanings",
                    where=path,
                    found=f"{category.id}: {category.name}",
                    expected=f"{other.name}, as in {files[0][0].name}",
                    fix="give all files the same categories",
                )
    annotations = [a for _, entries in files for image in entries.images for a in image.annotations]
    ignored = any(a.ignored for a in annotations)
    real = without_empty_parent(categories.values(), {a.category_id for a in annotations})
    numbering = number_classes(real, ignored, files[0][0])
    if len(real) < len(categories):
        note = f"{categories[0].name} (id 0) is no class: it is the parent of the others, and has no annotation"
        numbering = replace(numbering, notes=(*numbering.notes, note))
    if table is None:
        return numbering
    values = {spec.name: spec.value for spec in table.classes}
    if not all(category.name in values for category in categories.values()):
        return numbering
    if ignored and not table.ignore:
        return numbering
    ignore = table.ignore[0] if table.ignore else 255
    names = {category.name for category in categories.values()}
    background = next((spec.value for spec in table.classes if spec.name not in names), table.classes[0].value)
    return Numbering(table, {c.id: values[c.name] for c in categories.values()}, ignore, background)


def _named_file(source: Path, name: str) -> Path:
    path = (source / name).resolve()
    if not path.is_file():
        raise ConfigError(
            "no such file",
            where="--masks",
            found=name,
            expected="the JSON with the annotations",
            fix=f"give --masks a file, relative to {source} or absolute",
        )
    return path


def _named_folder(source: Path, name: str) -> Path:
    folder = (source / name).resolve()
    if not folder.is_dir():
        raise ConfigError(
            "no such folder",
            where="--images",
            found=name,
            expected="the folder of images",
            fix=f"give --images a folder, relative to {source} or absolute",
        )
    return folder


def _is_inside(path: Path, source: Path) -> bool:
    try:
        return path.resolve(strict=True).is_relative_to(source)
    except (OSError, RuntimeError):  # a link that leads nowhere, or to itself
        return False


@dataclass
class _ItemCollector:
    """Adds the images of annotation files to a result.

    images: the folder of images that the user names; None: it follows from the names of the annotation files.
    files_by_image: the annotation file that each image was taken from.
    """

    source: Path
    result: ReadResult
    numbering: Numbering
    has_instances: bool
    images: str | None
    listing: FolderListing
    files_by_image: dict[Path, Path] = field(default_factory=dict)

    @cached_property
    def files_by_name(self) -> dict[str, list[Path]]:
        """The image files at any depth below the source, by their names: the last resort for a name without a folder."""
        files: dict[str, list[Path]] = {}
        for path in filter(is_image_file, self.listing.files_below(self.listing.root)):
            files.setdefault(path.name, []).append(path)
        return {name: paths for name, paths in files.items() if all(_is_inside(path, self.source) for path in paths)}

    def add(self, path: Path, entries: list[ImageEntry]) -> None:
        """Add the images of one annotation file."""
        split = _split_of(path, self.source)
        root = self.source if self.images is None else _named_folder(self.source, self.images)
        folders = _image_folders(self.source, path) if self.images is None else [root]
        for entry in entries:
            try:
                image = find_listed(root, folders, entry.file_name, path)
            except DataError as error:
                elsewhere = self.files_by_name.get(entry.file_name, [])
                if len(elsewhere) != 1 or self.images is not None:
                    self.result.skipped.append((entry.file_name, str(error)))
                    continue
                image = elsewhere[0].resolve()
            if image in self.files_by_image:
                other = self.files_by_image[image]
                self._check_splits(path, other, entry.file_name)
                reason = f"listed in {path.name}, and already in {other.name}"
                self.result.skipped.append((entry.file_name, reason))
                continue
            self.files_by_image[image] = path
            name = (image.relative_to(root).parent / stem_of(image)).as_posix()
            painter = Painter(entry.annotations, self.numbering, entry.size, self.has_instances, str(image))
            self.result.items.append(RawItem(name, image, group=entry.group, split=split, draw=painter))

    def _check_splits(self, path: Path, other: Path, name: str) -> None:
        """Raise DataError for two files that list the same image and are not those of two splits: either could be the right one."""
        splits = [_split_of(file, self.source) for file in (other, path)]
        if path != other and (None in splits or splits[0] == splits[1]):
            raise DataError(
                "two annotation files list the same image",
                where=path,
                found=f"{name}, as in {other.name}",
                expected="one file for each split, or one for all",
                fix=f"name the right one: --masks {path.relative_to(self.source)}",
            )


def _split_of(path: Path, source: Path) -> str | None:
    """Return the split that the name of a file or its folder contains: instances_val2017.json, valid/_annotations.coco.json."""
    for name in (path.stem, path.parent.name if path.parent != source else ""):
        words = set(_SPLIT_WORD.findall(name.lower()))
        if len(words) == 1:
            return str(words.pop())
    return None


def _image_folders(source: Path, path: Path) -> list[Path]:
    """Return the folders in which the images of an annotation file may lie, the most likely ones first."""
    part = re.sub(r"^instances_?", "", path.stem)
    folders = [path.parent, source, source / "images", source / part, source / "images" / part]
    split = _split_of(path, source)
    names = {"train": ("train",), "val": ("val", "valid"), "test": ("test",)}.get(split or "", ())
    return folders + [folder for name in names for folder in (source / name, source / "images" / name)]

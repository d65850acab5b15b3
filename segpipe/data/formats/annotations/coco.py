"""`coco`: images and a JSON of `images`, `annotations` and `categories`; one JSON, or one for each split.

```
SRC/annotations/instances_train2017.json  SRC/train2017/...          COCO's own
SRC/train/_annotations.coco.json          SRC/train/...              Roboflow's
SRC/instances.json                        SRC/images/...             one file beside its images
```

An annotation with `iscrowd` marks pixels that count nowhere. `segpipe data export --format coco` adds what COCO has no place for,
and this reader heeds it: `info.class_table` (the class table with its file values), `isthing` 0 (a region, no object), and `group`.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from pydantic import ValidationError

from segpipe.data.formats.annotations.coco_entries import Entries, ImageEntry, parse_entries
from segpipe.data.formats.annotations.json_document import peek, read_document
from segpipe.data.formats.annotations.listed_images import find_listed
from segpipe.data.formats.annotations.categories import Category, Numbering, as_overlapping, number_classes
from segpipe.data.formats.annotations.painter import Painter
from segpipe.data.formats.pairs import is_part
from segpipe.data.formats.source import RawItem, ReadOptions, ReadResult
from segpipe.data.images import stem_of
from segpipe.errors import ConfigError, DataError
from segpipe.samples import ClassTable

MAX_JSON_BYTES = 1 << 30
_LISTS = (b'"images"', b'"annotations"', b'"categories"')
_NAMES = ("instances*.json", "_annotations.coco.json", "*.json")
"""Where several JSON files lie in a source, those of the first of these patterns that fits any."""

_SPLIT = re.compile(r"(?<![a-z])(train|val|test)(?:ing|id|idation)?(?![a-z])")


def recognise_coco(source: Path) -> str | None:
    """Why `source` is of this layout; None where it is not."""
    paths = _annotation_files(source)
    names = [path.relative_to(source).as_posix() for path in paths]
    return f"{names[0]} with `images`, `annotations`, `categories`" if names else None


def read_coco(source: Path, options: ReadOptions) -> ReadResult:
    """Read all annotation files of a source (`options.masks` names one; `options.images` the folder of images).

    Whatever is broken is left out with its reason: an image, or one annotation. Raises DataError where a file is no COCO at all,
    where categories contradict each other, where not one annotation has an outline, where files lie in folders of several datasets,
    and where files that are not those of different splits list the same image.
    """
    source = source.resolve()
    paths = [_said_file(source, options.masks)] if options.masks else _annotation_files(source)
    if not paths:
        raise DataError(
            "no COCO annotations", where=source, expected="a JSON with images, annotations and categories in it",
            fix="name it (--masks annotations/instances_train.json), or choose another --format",
        )
    homes = {path.parent: path for path in reversed(paths)}
    if len(homes) > 1 and not all(is_part(home.name) for home in homes):
        raise DataError(
            "COCO annotations in the folders of several datasets", where=source, found=", ".join(sorted(h.name for h in homes)),
            fix=f"import one of them ({min(homes)}), or name one file (--masks {min(homes.values()).relative_to(source)})",
        )
    found = ReadResult([])
    files: list[tuple[Path, Entries]] = []
    table: ClassTable | None = None
    for path in paths:
        document = read_document(path, MAX_JSON_BYTES)
        entries = parse_entries(document, path)
        if not any(photo.objects for photo in entries.photos) and document["annotations"]:
            name, reason = entries.skipped[0]
            raise DataError("not one annotation can be used", where=path, found=f"{name}: {reason}")
        table = table or _written_table(document)
        files.append((path, entries))
    numbering = _numbering(files, table)
    if options.overlapping:
        numbering = as_overlapping(numbering)
    found.classes = numbering.classes
    found.notes += numbering.notes
    marked = [m for _, entries in files for photo in entries.photos for m in photo.objects]
    instances = any(m.thing for m in marked) and not numbering.classes.overlapping
    taken: dict[Path, Path] = {}
    counts: Counter[str] = Counter()
    for path, entries in files:
        shown = path.relative_to(source).as_posix() if path.is_relative_to(source) else path.name
        found.skipped += [(f"{shown}: {name}", reason) for name, reason in entries.skipped]
        _add_items(found, source, path, entries.photos, numbering, instances, options.images, taken)
        found.notes.append(
            f"{shown}: {len(entries.photos)} images, {sum(len(p.objects) for p in entries.photos)} objects"
        )
        counts += entries.counts
    found.notes += [f"{text}: {count}" for text, count in counts.items() if count]
    return found


def _annotation_files(source: Path) -> list[Path]:
    """The JSON files that look like COCO, in name order: those in the source itself, or else those one folder down."""
    for level in ("*.json", "*/*.json"):
        there = [path for path in sorted(source.glob(level)) if not path.name.startswith(".") and path.is_file()]
        for pattern in _NAMES:
            fitting = [path for path in there if path.match(pattern) and _looks_like_coco(path)]
            if fitting:
                return fitting
    return []


def _looks_like_coco(path: Path) -> bool:
    """By the beginning and the end of a file; captions have no categories, and panoptic files have segments."""
    content = peek(path)
    lists = [name for name in _LISTS if name in content]
    return (
        content.lstrip()[:1] == b"{"
        and b'"categories"' in lists
        and len(lists) > 1
        and b'"segments_info"' not in content
    )


def _written_table(document: dict[str, object]) -> ClassTable | None:
    """The class table that our own export leaves in `info`; None where there is none that holds."""
    info = document.get("info")
    raw = info.get("class_table") if isinstance(info, dict) else None
    try:
        return ClassTable.model_validate(raw) if raw is not None else None
    except ValidationError:
        return None  # the categories say the same, but for file values


def _numbering(files: list[tuple[Path, Entries]], table: ClassTable | None) -> Numbering:
    categories: dict[int, Category] = {}
    for path, entries in files:
        for category in entries.categories:
            other = categories.setdefault(category.id, category)
            if other.name != category.name:
                raise DataError(
                    "a category id means two things", where=path, found=f"{category.id}: {category.name}",
                    expected=f"{other.name}, as in {files[0][0].name}", fix="give all files the same categories",
                )
    ignored = any(m.ignored for _, entries in files for photo in entries.photos for m in photo.objects)
    numbering = number_classes(categories.values(), ignored, files[0][0])
    if table is None:
        return numbering
    values = {spec.name: spec.value for spec in table.classes}
    if not all(category.name in values for category in categories.values()):
        return numbering
    if ignored and not table.ignore:
        return numbering
    ignore = table.ignore[0] if table.ignore else 255
    named = {category.name for category in categories.values()}
    ground = next((spec.value for spec in table.classes if spec.name not in named), table.classes[0].value)
    return Numbering(table, {c.id: values[c.name] for c in categories.values()}, ignore, ground)


def _said_file(source: Path, name: str) -> Path:
    path = (source / name).resolve()
    if not path.is_file():
        raise ConfigError("names no file", where="--masks", found=name, expected="the JSON with the annotations")
    return path


def _said_folder(source: Path, name: str) -> Path:
    folder = (source / name).resolve()
    if not folder.is_dir():
        raise ConfigError("names no folder", where="--images", found=name, expected="the folder of images")
    return folder


def _add_items(
    found: ReadResult, source: Path, path: Path, photos: list[ImageEntry], numbering: Numbering, instances: bool, images: str | None,
    taken: dict[Path, Path],
) -> None:
    split = _split_of(path, source)
    top = source if images is None else _said_folder(source, images)
    folders = _image_folders(source, path) if images is None else [top]
    for photo in photos:
        try:
            image = find_listed(top, folders, photo.file_name, path)
        except DataError as error:
            found.skipped.append((photo.file_name, str(error)))
            continue
        if image in taken:
            _check_splits(path, taken[image], photo.file_name, source)
            found.skipped.append((photo.file_name, f"listed in {path.name}, and in {taken[image].name} already"))
            continue
        taken[image] = path
        name = (image.relative_to(top).parent / stem_of(image)).as_posix()
        painter = Painter(photo.objects, numbering, photo.size, instances, str(image))
        found.items.append(RawItem(name, image, group=photo.group, split=split, draw=painter))


def _check_splits(path: Path, before: Path, name: str, source: Path) -> None:
    """DataError for two files that list an image and are not those of two splits: which of them counts can't be told."""
    splits = [_split_of(each, source) for each in (before, path)]
    if path != before and (None in splits or splits[0] == splits[1]):
        raise DataError(
            "two annotation files list the same image", where=path, found=f"{name}, as in {before.name}",
            expected="one file for each split, or one for all", fix=f"name the one that counts: --masks {path.relative_to(source)}",
        )


def _split_of(path: Path, source: Path) -> str | None:
    """What the names say: instances_val2017.json, valid/_annotations.coco.json."""
    for name in (path.stem, path.parent.name if path.parent != source else ""):
        words = set(_SPLIT.findall(name.lower()))
        if len(words) == 1:
            return str(words.pop())
    return None


def _image_folders(source: Path, path: Path) -> list[Path]:
    part = re.sub(r"^instances_?", "", path.stem)
    places = [path.parent, source, source / "images", source / part, source / "images" / part]
    split = _split_of(path, source)
    names = {"train": ("train",), "val": ("val", "valid"), "test": ("test",)}.get(split or "", ())
    return places + [folder for name in names for folder in (source / name, source / "images" / name)]

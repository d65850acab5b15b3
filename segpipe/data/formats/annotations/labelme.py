"""`labelme`: a JSON for each image, with shapes in pixels and a label for each, as labelme and X-AnyLabeling write it.

Labels are classes, in name order; `_background_` is the background (the way to draw holes), and `__ignore__` marks ignored pixels.
Shapes with the same label and the same `group_id` are parts of one instance. The image is the file that `imagePath` names, relative to
the JSON and inside the source, or the file next to the JSON; then the image that the JSON itself holds; then the only image of this name
in another folder of the source.

An image is left out if one of its shapes is broken or of a kind that cannot be read, because the pixels of that shape would otherwise be
background; so is one with a line or a point whose label is a class elsewhere.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any

from segpipe.data.formats.annotations.categories import Category, is_background_category, number_classes
from segpipe.data.formats.annotations.json_document import embedded_image, embedded_suffix, peek, read_document
from segpipe.data.formats.annotations.labelme_shapes import parse_labelme_shape
from segpipe.data.formats.annotations.listed_images import ImageIndex
from segpipe.data.formats.annotations.painter import CLIPPED, Annotation, Painter, StoredOrientationPainter
from segpipe.data.formats.annotations.shapes import Polygons, Shape, joined, lies_outside, reaches_out
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import RawItem, ReadOptions, ReadResult
from segpipe.data.images import SUFFIXES, read_size
from segpipe.data.images.bounds import Bounds
from segpipe.errors import DataError
from segpipe.words import listed

IGNORED_LABEL = "__ignore__"
_MAX_JSON_BYTES = 1 << 29
_KEYS = (b'"shapes"', b'"imagePath"')
_MAX_NAMES_SHOWN = 8
_MAX_FILES_CHECKED = 3
"""JSON files of a folder that recognition looks at."""
_MAX_FOLDERS_CHECKED = 20
"""Folders whose own folders recognition looks at, and how many of these."""
_MAX_NAME_LENGTH = 4096
EMBEDDED = "images taken from their JSON, because there is no file next to it"


@dataclass
class _AnnotatedImage:
    """One image of the source.

    size: (height, width) in pixels, as the JSON says.
    shapes: (label, shape) of its instances.
    labels_without_area: the labels of its lines and points.
    is_incomplete: whether a shape was left out that may have covered pixels.
    """

    item: RawItem
    size: tuple[int, int]
    shapes: list[tuple[str, Shape]] = field(default_factory=list)
    labels_without_area: list[str] = field(default_factory=list)
    is_incomplete: bool = False


def recognise_labelme(probe: SourceProbe) -> str | None:
    """Return why the source has this layout: one of the first JSON files of a folder has its keys. None otherwise."""
    folders = probe.listing.folders(probe.source)
    inner = (
        child
        for folder in folders[:_MAX_FOLDERS_CHECKED]
        for child in probe.listing.folders(folder)[:_MAX_FOLDERS_CHECKED]
    )
    for folder in itertools.chain([probe.source], folders, inner):
        for path in probe.listing.matching(folder, "*.json")[:_MAX_FILES_CHECKED]:
            content = peek(path)
            if all(key in content for key in _KEYS):
                return f"{path.relative_to(probe.source).as_posix()} with `shapes` and `imagePath`"
    return None


def read_labelme(probe: SourceProbe, options: ReadOptions) -> ReadResult:
    """Read every JSON of the layout, at any depth. Broken files, and images with broken shapes, are left out with the reason.

    Raises:
        DataError: there is no such file, not one of them is usable, or no shape has an area.
    """
    source = probe.source.resolve()
    files = [path for path in probe.listing.files_below(probe.source) if path.suffix.lower() == ".json"]
    reader = _FileReader(source, ImageIndex(probe), options, ReadResult([], classes_from="the labels of the shapes"))
    result = reader.result
    images: list[_AnnotatedImage] = []
    for file in files:
        name = file.relative_to(probe.source)
        try:
            images.append(reader.read(source / name, name.as_posix()))
            result.used_files.add(file)
        except DataError as error:
            result.skipped.append((name.as_posix(), str(error)))
    if not images:
        raise DataError(
            "no labelme files",
            where=source,
            found=": ".join(result.skipped[0]) if result.skipped else None,
            expected="a JSON with `shapes` for each image",
            fix="choose another --format",
        )
    labels = {label for image in images for label, _ in image.shapes}
    _check_any_area(images, labels, result, source)
    class_names = sorted(label for label in labels - {IGNORED_LABEL} if not is_background_category(label))
    ids = dict.fromkeys(labels, 0) | {label: number for number, label in enumerate(class_names, start=1)}
    categories = [Category(number, label) for label, number in ids.items() if label != IGNORED_LABEL]
    numbering = number_classes(categories, IGNORED_LABEL in labels, source)
    result.classes = numbering.classes
    for image in _without_ambiguous(images, result):
        item = image.item
        annotations = [
            Annotation(shape, ids[label], label == IGNORED_LABEL, not is_background_category(label))
            for label, shape in image.shapes
        ]
        painter = Painter(annotations, numbering, image.size, True, str(item.image))
        draw = StoredOrientationPainter(painter, item.image, options.limits)
        lines = sorted(labels & set(image.labels_without_area))
        if lines:
            reason = f"has lines or points of the class {lines[0]}, which have no area; the image is not used"
            result.skipped.append((item.name, reason))
        is_usable = not image.is_incomplete and not lines
        result.items.append(RawItem(item.name, item.image, draw=draw if is_usable else None, content=item.content))
    _add_notes(result, images, labels, reader.counts)
    return result


def _check_any_area(images: list[_AnnotatedImage], labels: set[str], result: ReadResult, source: Path) -> None:
    if all(label == IGNORED_LABEL or is_background_category(label) for label in labels):
        without = Counter(label for image in images for label in image.labels_without_area)
        reasons = [f"{without.total()} lines and points, which have no area"] if without else []
        reasons += [": ".join(result.skipped[0])] if result.skipped else []
        raise DataError(
            "no shape of a class can be used",
            where=source,
            found="; ".join(reasons) or f"{len(images)} files without shapes",
            expected="polygons, masks, rectangles or circles",
            fix="outline the instances, or choose another --format",
        )


def _add_notes(result: ReadResult, images: list[_AnnotatedImage], labels: set[str], counts: Counter[str]) -> None:
    """Say what was decided: folders that were joined, images that were left out, and labels that are no classes."""
    folders = sorted({item.name.rpartition("/")[0] or "." for item in result.items})
    if len(folders) > 1:
        result.notes.append(f"several folders imported together: {listed(folders, _MAX_NAMES_SHOWN)}")
    by_lower_case: dict[str, list[str]] = {}
    for label in sorted(labels):
        by_lower_case.setdefault(label.lower(), []).append(label)
    similar = [" and ".join(same) for same in by_lower_case.values() if len(same) > 1]
    if similar:
        result.notes.append(
            f"labels that differ only in capital letters are different classes: {listed(similar, _MAX_NAMES_SHOWN)}"
        )
    if incomplete := sum(image.is_incomplete for image in images):
        counts["images not used, because one of their shapes cannot be read"] += incomplete
    without = Counter(label for image in images for label in image.labels_without_area)
    for label, count in without.items():
        if label in labels:
            shapes = f"lines and points of the class {label}, which have no area; their images are not used"
        else:
            shapes = f"lines and points labelled {label}, which have no area; {label} is not a class"
        counts[shapes] += count
    result.notes += [f"{text}: {count}" for text, count in counts.items() if count]


def _without_ambiguous(images: list[_AnnotatedImage], result: ReadResult) -> list[_AnnotatedImage]:
    """Return the images that only one JSON file names."""
    times = Counter(image.item.image for image in images)
    for path, count in times.items():
        if count > 1:
            result.skipped.append((path.name, f"{count} JSON files name this image"))
    return [image for image in images if times[image.item.image] == 1]


@dataclass
class _FileReader:
    """Reads the JSON files of a source.

    source: the source, resolved.
    index: its image files.
    result: gets a line for each shape that is left out.
    counts: decisions, and how often each was made.
    """

    source: Path
    index: ImageIndex
    options: ReadOptions
    result: ReadResult
    counts: Counter[str] = field(default_factory=Counter)

    def read(self, path: Path, name: str) -> _AnnotatedImage:
        """Return the content of one file, whose name for the user is `name`.

        Raises:
            DataError: it is not a labelme file, or its image is missing.
        """
        document = read_document(path, _MAX_JSON_BYTES)
        entries = document.get("shapes")
        if not isinstance(entries, list):
            raise DataError("has no list `shapes`", expected="a file that labelme has written")
        item = self._item(path, document)
        height, width = size = self._size(document, item)
        image = _AnnotatedImage(item, size)
        parts_by_instance: dict[tuple[str, Any], list[Shape]] = {}
        for number, entry in enumerate(entries):
            try:
                shape = parse_labelme_shape(entry, height, width)
                is_drawn = shape.area is not None and self._is_inside(shape.area, size, f"{name}: shape {number}")
            except DataError as error:
                self.result.skipped.append((f"{name}: shape {number}", str(error)))
                image.is_incomplete = True
                continue
            if shape.area is None:
                image.labels_without_area.append(shape.label)
            elif is_drawn:
                group = entry.get("group_id")
                instance = (shape.label, f"group {group}" if group is not None else number)
                parts_by_instance.setdefault(instance, []).append(shape.area)
            self.counts.update(f"shapes with the flag {flag}, imported like the others" for flag in shape.flags)
        image.shapes = [(label, joined(parts)) for (label, _), parts in parts_by_instance.items()]
        return image

    def _is_inside(self, area: Shape, size: tuple[int, int], name: str) -> bool:
        """Return whether a shape covers pixels of its image, and count it if it is clipped. Raises DataError if it is much too large."""
        if not isinstance(area, Polygons):
            return True
        if lies_outside(area, *size):
            self.result.skipped.append((name, "lies outside its image"))
            return False
        self.counts[CLIPPED] += reaches_out(area, *size)
        return True

    def _item(self, path: Path, document: dict[str, Any]) -> RawItem:
        name = path.relative_to(self.source).with_suffix("").as_posix()
        image_path = document.get("imagePath")
        image_name = image_path if isinstance(image_path, str) and len(image_path) < _MAX_NAME_LENGTH else ""
        image = self._named_image(path, image_name) or self.index.find(image_name, min_parts=2)
        image = image or self._image_next_to(path, image_name)
        if image is None and not document.get("imageData"):
            image = self.index.find(image_name) or self.index.find_stem(path.stem)
        if image is not None:
            return RawItem(name, image)
        suffix = embedded_suffix(document.get("imageData"))
        self.counts[EMBEDDED] += 1
        return RawItem(name, path.with_suffix(suffix), content=partial(embedded_image, path, _MAX_JSON_BYTES))

    def _named_image(self, path: Path, image_name: str) -> Path | None:
        """Return the image file that `imagePath` names relative to its JSON."""
        return self._image(path.parent / image_name.replace("\\", "/")) if image_name else None

    def _image_next_to(self, path: Path, image_name: str) -> Path | None:
        """Return the image file in the folder of a JSON: with the file name in `imagePath`, or the name of the JSON."""
        names = [PureWindowsPath(image_name).name] if image_name else []
        names += [path.stem + suffix for suffix in SUFFIXES] + [path.stem + suffix.upper() for suffix in SUFFIXES]
        candidates = (path.parent / name for name in names if name not in ("", ".", ".."))
        return next((image for candidate in candidates if (image := self._image(candidate))), None)

    def _image(self, candidate: Path) -> Path | None:
        """Return a path, resolved, if it is an image file inside the source."""
        try:
            image = candidate.resolve()
            is_image = image.suffix.lower() in SUFFIXES and image.is_file() and image.is_relative_to(self.source)
        except (OSError, ValueError, RuntimeError):  # too long, a NUL, or a loop of links
            return None
        return image if is_image else None

    def _size(self, document: dict[str, Any], item: RawItem) -> tuple[int, int]:
        """Return the (height, width) that a file states; that of the image file if it states none."""
        height, width = document.get("imageHeight"), document.get("imageWidth")
        if (height, width) == (None, None) and item.content is None:
            sizes = read_size(item.image, self.options.limits)
            return sizes[-2], sizes[-1]
        if type(height) is not int or type(width) is not int or height < 1 or width < 1:
            found = f"imageWidth {width}, imageHeight {height}"
            raise DataError("has no image size", found=found, expected="both in pixels")
        Bounds.from_limits(self.options.limits).check(item.image.name, height, width)
        return height, width

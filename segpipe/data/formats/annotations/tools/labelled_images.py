"""Images with named shapes, as annotation tools export them, and their conversion to items that are drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segpipe.data.formats.annotations.categories import Category, as_overlapping, is_background_category, number_classes
from segpipe.data.formats.annotations.painter import Annotation, Painter
from segpipe.data.formats.annotations.shapes import Composite, Polygons, Shape
from segpipe.data.formats.masks.palettes import IGNORED_NAMES
from segpipe.data.formats.source import RawItem, ReadOptions, ReadResult
from segpipe.errors import DataError
from segpipe.words import listed

WITHOUT_SHAPES = "images without any shape, which are all background"
BOXES = "boxes, drawn as filled rectangles"
_MAX_LABELS_SHOWN = 8


class IncompleteImage(DataError):
    """An image has a shape of a kind that is not drawn, although it has an area: its pixels would become background.

    Args:
        kind: what the tool calls the kind.
    """

    def __init__(self, kind: object) -> None:
        super().__init__(
            "the image has a shape that cannot be drawn, and is left out so that its pixels do not become background",
            found=str(kind)[:40],
            fix="redraw it as a polygon or a mask, and export again",
        )


@dataclass(frozen=True)
class LabelledShape:
    """A shape with the name of its class.

    label: the class name.
    shape: its pixels.
    layer: shapes of higher layers cover those of lower ones.
    group: shapes of an image with the same label and group are parts of one instance; None for a shape of its own.
    ignored: whether its pixels are ignored, in addition to those of labels such as `ignore`.
    """

    label: str
    shape: Shape
    layer: int = 0
    group: int | None = None
    ignored: bool = False


@dataclass(frozen=True)
class LabelledImage:
    """An image with its shapes. `size` is (height, width) in pixels, as the annotations or the image file give it."""

    name: str
    image: Path
    size: tuple[int, int]
    shapes: list[LabelledShape] = field(default_factory=list)
    split: str | None = None
    group: str | None = None


@dataclass
class LabelTable:
    """The labels that a tool defines, in its order, with their colours (RGB 0..255) if they have one.

    colors: {label: colour}.
    not_drawn: labels of shapes that are not drawn, such as points, and how many of them there are.
    """

    colors: dict[str, tuple[int, int, int] | None] = field(default_factory=dict)
    not_drawn: Counter[str] = field(default_factory=Counter)

    def add(self, label: str, color: tuple[int, int, int] | None = None) -> None:
        """Add a label, if it is new or has had no colour. Black is no colour of a class: pages show it as background."""
        if self.colors.get(label) is None:
            self.colors[label] = color if color and any(color) else None


def parse_hex_color(text: object) -> tuple[int, int, int] | None:
    """Return the colour that a text such as `#ff8000` means; None if it is not one."""
    digits = text.removeprefix("#") if isinstance(text, str) else ""
    try:
        return (int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)) if len(digits) == 6 else None
    except ValueError:
        return None


def is_ignored_label(label: str) -> bool:
    """Return whether a label marks pixels to be ignored, such as `ignore` or `void`."""
    return label.strip().lower() in IGNORED_NAMES


def add_items(
    result: ReadResult,
    images: Sequence[LabelledImage],
    labels: LabelTable,
    counts: Counter[str],
    where: Path,
    options: ReadOptions,
) -> None:
    """Add the images to a result, with painters of their shapes, the class table, and notes of what was counted.

    Classes are the labels of the tool in its order, then other labels in the order of their names. Labels such as `ignore` mark
    ignored pixels; one named `background` is the background.

    Args:
        result: gets the items, the class table and notes.
        images: the images; those that occur several times are merged if their shapes are the same.
        labels: the labels that the tool defines; those of shapes that are not drawn are left out.
        counts: how often something happened, by its description.
        where: the annotation file or the source, for errors.
        options: with `overlapping`, a pixel may have several classes.

    Raises:
        DataError: no image is left; no shape of a class is left, so that everything would be background; or there are too many classes.
    """
    result.notes += [f"{text}: {count}" for text, count in sorted(counts.items()) if count]
    images = _without_repeated(images, result)
    if not images:
        reason = ": ".join(result.skipped[0]) if result.skipped else "no image in the annotations"
        raise DataError("no annotated image can be used", where=where, found=reason)  # the reason says how to mend it
    used = Counter(shape.label for image in images for shape in image.shapes if not shape.ignored)
    if not any(not is_background_category(label) and not is_ignored_label(label) for label in used):
        reason = ": ".join(result.skipped[0]) if result.skipped else "no shape with an area and a class"
        raise DataError(
            "no shape can be drawn, so that all pixels would be background",
            where=where,
            found=reason if not result.notes else f"{reason}; {'; '.join(result.notes)}"[:400],
            expected="polygons, boxes or masks, each with a class",
            fix="outline the instances and export again",
        )
    omitted = [label for label in labels.colors if labels.not_drawn[label] and not used[label]]
    if omitted:
        result.notes.append(f"classes of shapes that are not drawn, left out: {listed(omitted, _MAX_LABELS_SHOWN)}")
    names = [label for label in labels.colors if label not in omitted]
    names += sorted(used.keys() - names)
    class_names = [name for name in names if not is_background_category(name) and not is_ignored_label(name)]
    ids = {name: 0 for name in names if is_background_category(name)}
    ids |= {name: number for number, name in enumerate(class_names, start=1)}
    has_ignored = any(s.ignored or is_ignored_label(s.label) for image in images for s in image.shapes)
    categories = [Category(number, name, labels.colors.get(name)) for name, number in ids.items()]
    numbering = number_classes(categories, has_ignored, where)
    if options.overlapping:
        numbering = as_overlapping(numbering)
        result.notes += numbering.notes
    has_instances = not numbering.classes.overlapping
    result.classes = numbering.classes
    if empty := sum(not image.shapes for image in images):
        result.notes.append(f"{WITHOUT_SHAPES}: {empty}")
    for image in images:
        annotations = [_annotation(parts, ids) for parts in _instances(image.shapes)]
        painter = Painter(annotations, numbering, image.size, has_instances, str(image.image))
        result.items.append(RawItem(image.name, image.image, group=image.group, split=image.split, draw=painter))


def _instances(shapes: list[LabelledShape]) -> list[list[LabelledShape]]:
    """Return the shapes of each instance."""
    by_instance: dict[tuple[str, object, bool], list[LabelledShape]] = {}
    for number, shape in enumerate(shapes):
        key = ("shape", number) if shape.group is None else ("group", shape.group)
        by_instance.setdefault((shape.label, key, shape.ignored), []).append(shape)
    return list(by_instance.values())


def _annotation(parts: list[LabelledShape], ids: dict[str, int]) -> Annotation:
    first = parts[0]
    shape = first.shape if len(parts) == 1 else Composite(tuple(part.shape for part in parts))
    ignored = first.ignored or is_ignored_label(first.label)
    return Annotation(shape, ids.get(first.label, 0), ignored, layer=max(part.layer for part in parts))


def _without_repeated(images: Sequence[LabelledImage], result: ReadResult) -> list[LabelledImage]:
    """Return each image once. One with different shapes in several annotations is left out: either could be right."""
    by_path: dict[Path, list[LabelledImage]] = {}
    for image in images:
        by_path.setdefault(image.image, []).append(image)
    unique = []
    for same in by_path.values():
        filled = [image for image in same if image.shapes] or same[:1]
        if len({_fingerprint(image) for image in filled}) > 1:
            result.skipped.append(
                (
                    same[0].name,
                    f"{len(filled)} annotations of this image differ: keep one of their files",
                )
            )
        else:
            unique.append(filled[0])
    return unique


def _fingerprint(image: LabelledImage) -> tuple[object, ...]:
    return tuple((s.label, s.layer, s.group, s.ignored, _pixels(s.shape)) for s in image.shapes)


def _pixels(shape: Shape) -> tuple[object, ...]:
    """Return the content of a shape as values that can be compared."""
    if isinstance(shape, Polygons):
        return tuple(part.tobytes() for part in shape.parts)
    if isinstance(shape, Composite):
        return tuple(map(_pixels, shape.added)), tuple(map(_pixels, shape.removed))
    return shape.height, shape.width, shape.code if isinstance(shape.code, bytes) else shape.code.tobytes()

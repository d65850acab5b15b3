"""Applying a reading: the labels of each item are drawn from its mask file as the kind of mask requires."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from segpipe.data.formats.mask_labels import (
    BINARY_CLASSES,
    INSTANCE_CLASSES,
    AlphaMask,
    LabelMap,
    ThresholdMask,
    TurnedMask,
    ValueMask,
)
from segpipe.data.formats.masks.colour_masks import draw_by_palette
from segpipe.data.formats.masks.palettes import Palette, make_palette
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.readings.mask_kinds import STORED_PALETTE
from segpipe.data.formats.readings.orientation import image_orientation
from segpipe.data.formats.readings.reading import Reading
from segpipe.data.formats.registry import find_format
from segpipe.data.formats.source import Draw, MaskKind, RawItem, ReadOptions, ReadResult
from segpipe.data.images.raster import SIDEWAYS
from segpipe.data.mask_content import MaskReader
from segpipe.data.mask_facts import RGB
from segpipe.errors import DataError
from segpipe.samples import ClassSpec, ClassTable, default_color

_MAX_MASKS_READ = 200
"""At most this many masks, evenly spread, are read for the values of alpha or for the colours of stored palettes."""


def read_as(probe: SourceProbe, reading: Reading, options: ReadOptions) -> ReadResult:
    """Read the items of a source as one of its readings says.

    Args:
        probe: the source.
        reading: the reading.
        options: the user's options; those of the reading are added.

    Raises:
        ConfigError: masks are in colours, and no palette names the classes.
        DataError: the source does not have this layout, or its palette is not valid.
    """
    extra = {name: value for name, value in reading.options.items() if name != "ignore"}  # which is no option of files
    options = options.model_copy(update=extra)
    layout = find_format(reading.layout)
    result = layout.read(probe, options)
    if layout.has_mask_files:
        apply_kind(result, reading.kind, options, probe.source, probe.mask_reader(options.limits))
    return result


def apply_kind(
    result: ReadResult, kind: MaskKind | None, options: ReadOptions, source: Path, reader: MaskReader
) -> None:
    """Change a result so that its labels are drawn from mask files of this kind, and turned with their images where needed.

    Args:
        result: the items of a source; those that are drawn already are not changed.
        kind: what the pixels of mask files stand for; None and "classes" leave the files as they are.
        options: `threshold`, `palette`, `tolerance`, `unknown_colours` and `exif` are used.
        source: the folder of the source, in which a palette is looked for.
        reader: decodes the masks.

    Raises:
        ConfigError: masks are in colours, and no palette names the classes.
        DataError: the palette is not valid, or no mask can be read.
    """
    limits = options.limits
    if kind == "instances":
        _draw(result, lambda mask: LabelMap(mask, limits), INSTANCE_CLASSES, "one class for all instances")
    elif kind == "binary":
        threshold = 128.0 if options.threshold is None else options.threshold
        words = f"masks divided at the threshold {threshold:g}"
        _draw(result, lambda mask: ThresholdMask(mask, threshold, limits), BINARY_CLASSES, words)
    elif kind == "alpha":
        table = _alpha_classes(_some_masks(result), reader)
        _draw(result, lambda mask: AlphaMask(mask, limits), table, "the values of the alpha channel")
    elif kind == "colours":
        palette = _stored_palette(_some_masks(result), reader) if options.palette == STORED_PALETTE else None
        draw_by_palette(result, source, options, palette)
    if options.exif == "ignore":
        result.items = [_turned(item, reader) for item in result.items]


def _draw(result: ReadResult, draw: Callable[[Path], Draw], classes: ClassTable, origin: str) -> None:
    result.items = [
        replace(item, mask=None, instances=None, draw=draw(item.mask)) if item.mask else item for item in result.items
    ]
    result.classes, result.classes_from = classes, origin


def _some_masks(result: ReadResult) -> list[Path]:
    masks = [item.mask for item in result.items if item.mask]
    return masks[:: max(1, -(-len(masks) // _MAX_MASKS_READ))]


def _alpha_classes(masks: list[Path], reader: MaskReader) -> ClassTable:
    """Return the class table of the values that alpha channels hold."""
    found: set[int] = set()
    for mask in masks:
        try:
            found |= set(np.unique(AlphaMask(mask, reader.limits).values()).tolist())
        except DataError:  # drawing it reports the error
            continue
    values = sorted(found | {0})
    if len(values) < 2:
        raise DataError(
            "the alpha channel does not vary", where=masks[0], found=f"values {values}", fix="choose another --kind"
        )
    names = ["background", "foreground"] if len(values) == 2 else ["background", *(f"class {v}" for v in values[1:])]
    return ClassTable.from_names(names, values)


def _stored_palette(masks: list[Path], reader: MaskReader) -> Palette:
    """Return the palette of all colours that palette images (and grey ones) store; black is the background."""
    colours: Counter[RGB] = Counter()
    for mask in masks:
        facts = reader.read(mask, with_facts=True).facts
        if facts is not None:
            palette = facts.palette or {}
            colours.update({palette.get(v, (v, v, v)): n for v, n in facts.counts.items() if v < 256})
    ordered = sorted(colours, key=lambda colour: (any(colour), colour))
    words = {colour: "colour " + " ".join(map(str, colour)) for colour in ordered}
    if ordered and not any(ordered[0]):
        words[ordered[0]] = "background"
        if len(ordered) == 2:
            words[ordered[1]] = "foreground"
    made = make_palette([(words[colour], colour) for colour in ordered], "the colours of the masks' palettes")
    shown = tuple(
        ClassSpec(name=spec.name, value=spec.value, color=spec.color if any(spec.color) else default_color(0))
        for spec in made.classes.classes
    )
    return replace(made, classes=ClassTable(classes=shown))


def _turned(item: RawItem, reader: MaskReader) -> RawItem:
    """Return an item whose labels are turned like its image; the item itself if the image has no orientation."""
    if not item.mask and not item.draw:
        return item
    orientation, stored = image_orientation(item.image, reader)
    if orientation == 1:
        return item
    draw = item.draw or (ValueMask(item.mask, reader.limits) if item.mask else None)
    assert draw is not None
    if orientation in SIDEWAYS and item.mask and stored[0] != stored[1]:
        facts = reader.read(item.mask, with_facts=True).facts
        if facts is not None and facts.size == stored[::-1]:
            return item  # this mask was drawn on the turned image
    return replace(item, mask=None, draw=TurnedMask(draw, orientation))

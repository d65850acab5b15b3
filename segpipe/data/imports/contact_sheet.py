"""A contact sheet: for each reading of a source, some images with the labels that the reading gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from segpipe.config import DataParams
from segpipe.data.drawing import Picture, outline_instances, overlay, to_display
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.readings.apply import read_as
from segpipe.data.formats.readings.reading import Reading
from segpipe.data.formats.source import Drawing, RawItem, ReadOptions
from segpipe.data.images import encode_png, read_image, read_mask
from segpipe.errors import SegpipeError
from segpipe.files import write_bytes
from segpipe.samples import ClassTable, default_color

_EDGE, _MARGIN, _TITLE = 192, 8, 34
_MAX_IMAGES, _MAX_READINGS = 6, 6
_MAX_EDGE_DRAWN = 4 * _EDGE
"""Of larger images every second pixel is drawn, or every third, and so on."""
_MAX_TITLE = 190
_CAPTION, _MAX_NAME, _MAX_LEGEND = 18, 30, 20
"""The height of a line of text in pixels, the characters of a name, and the classes of a legend that are shown."""
_PAPER = 255

Legend = dict[str, tuple[int, int, int]]
"""The colour of each class, by its value and name."""


def write_contact_sheet(
    path: Path, probe: SourceProbe, readings: Sequence[Reading], options: ReadOptions, ignore: Sequence[int]
) -> None:
    """Write a PNG with one row per reading: its number and title, and up to six images with the
    labels that it gives, the names of their files, and a legend of the classes.

    A reading that cannot be drawn has a row with the reason.

    Args:
        path: the file to write.
        probe: the source.
        readings: its readings; the first six are shown.
        options: the user's options.
        ignore: the values that the user ignores.
    """
    rows = []
    for number, reading in enumerate(readings[:_MAX_READINGS], start=1):
        title = f"[{number}] {reading.lines()[0]}"
        try:
            pictures, legend = _pictures(probe, reading, options, [*ignore])
        except SegpipeError as error:
            pictures, legend, title = {}, {}, f"{title}: {error}"
        rows.append(_row(title, pictures, legend))
    write_bytes(path, encode_png(np.concatenate(rows)))


def _row(title: str, pictures: dict[str, Picture], legend: Legend) -> Picture:
    """Return a row: the title, the pictures with the names of their files below, and the legend."""
    width = _MAX_IMAGES * (_EDGE + _MARGIN) + _MARGIN
    height = _TITLE + (_EDGE + _CAPTION if pictures else 0) + (_CAPTION if legend else 0)
    image = Image.fromarray(np.full((height, width, 3), _PAPER, np.uint8))
    draw = ImageDraw.Draw(image)
    _write(draw, (_MARGIN, 10), title[:_MAX_TITLE])
    for index, (name, picture) in enumerate(pictures.items()):
        left = _MARGIN + index * (_EDGE + _MARGIN)
        image.paste(Image.fromarray(_fitted(picture)), (left, _TITLE))
        _write(draw, (left, _TITLE + _EDGE + 3), name if len(name) <= _MAX_NAME else f"...{name[3 - _MAX_NAME :]}")
    x, y = _MARGIN, height - _CAPTION
    for name, colour in legend.items():
        draw.rectangle((x, y + 3, x + 10, y + 13), fill=colour, outline=(0, 0, 0))
        _write(draw, (x + 16, y + 3), name[:_MAX_NAME])
        x += 16 + int(draw.textlength(_ascii(name[:_MAX_NAME]))) + 2 * _MARGIN
    return np.array(image)


def _write(draw: ImageDraw.ImageDraw, position: tuple[int, int], text: str) -> None:
    draw.text(position, _ascii(text), fill=(0, 0, 0))


def _ascii(text: str) -> str:
    """Return a text in the characters that the built-in font has."""
    return text.encode("ascii", "replace").decode()


def _fitted(picture: Picture) -> Picture:
    """Return a picture scaled to fit into a square, on paper."""
    scale = _EDGE / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    scaled = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    square = np.full((_EDGE, _EDGE, 3), _PAPER, np.uint8)
    square[: scaled.shape[0], : scaled.shape[1]] = scaled
    return square


def _pictures(
    probe: SourceProbe, reading: Reading, options: ReadOptions, ignore: list[int]
) -> tuple[dict[str, Picture], Legend]:
    """Return the pictures of some items by the name of their files, and the colours of the classes that they show."""
    ignored = [*ignore, *([int(reading.options["ignore"])] if "ignore" in reading.options else [])]
    result = read_as(probe, reading, options)
    labelled = [item for item in result.items if item.mask or item.draw]
    sample = labelled[:: max(1, len(labelled) // _MAX_IMAGES)][:_MAX_IMAGES]
    legend: Legend = {}
    pictures = {
        item.image.name if len(sample) == len({i.image.name for i in sample}) else item.name: _overlaid(
            item, result.classes, ignored, options.limits, legend
        )
        for item in sample
    }
    return pictures, dict(list(legend.items())[:_MAX_LEGEND])


def _overlaid(
    item: RawItem, classes: ClassTable | None, ignored: list[int], limits: DataParams, legend: Legend
) -> Picture:
    """Return an image with its labels; the image alone if they cannot be drawn."""
    try:
        image = read_image(item.image, limits)
        drawing = _labels(item, image.shape[:-1], limits)
        step = max(1, max(image.shape[-3:-1]) // _MAX_EDGE_DRAWN)
        image = image[..., ::step, ::step, :].copy()  # so that the memory of a large one is free
        if drawing.instances is not None:
            legend["outlines of single instances"] = (_PAPER, _PAPER, _PAPER)
            return outline_instances(image, drawing.instances[..., ::step, ::step])
        ids, colors, values = _as_ids(drawing.mask[..., ::step, ::step], classes, ignored)
        names = {spec.value: spec.name for spec in classes.classes} if classes else {}
        for value, colour in zip(values, colors.tolist(), strict=False):
            if any(colour):
                legend.setdefault(f"{value} {names.get(value, '')}".strip(), tuple(colour))
        return overlay(image, ids, colors) if ids.shape == image.shape[:-1] else to_display(image)
    except SegpipeError:
        return np.full((_EDGE, _EDGE, 3), _PAPER, np.uint8)


def _labels(item: RawItem, shape: tuple[int, ...], limits: DataParams) -> Drawing:
    if item.draw:
        return item.draw(shape[-2], shape[-1])
    assert item.mask is not None
    return Drawing(read_mask(item.mask, limits))


def _as_ids(
    mask: np.ndarray, classes: ClassTable | None, ignored: list[int]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], list[int]]:
    """Return class ids, of the shape of the mask, the colour of each class, (n, 3), and its value; ignored values get no colour."""
    found = [0, *(value for value in np.unique(mask).tolist() if value != 0)]
    by_value = {spec.value: spec.color for spec in classes.classes} if classes else {}
    ids = np.searchsorted(np.array(sorted(found)), mask)
    colors = np.array(
        [
            (0, 0, 0) if value in ignored else by_value.get(value, default_color(index) if value else (0, 0, 0))
            for index, value in enumerate(sorted(found))
        ],
        np.uint8,
    )[:250]
    return np.minimum(ids, 250).astype(np.uint8), colors, sorted(found)

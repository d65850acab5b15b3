"""The pictures of the page: photographs, each with its labels as a layer that can be switched off."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import cv2
import numpy as np

from segpipe.config import DataParams
from segpipe.data.dataset import Dataset, load_sample
from segpipe.data.drawing import label_layer, thumbnail
from segpipe.data.images import read_image
from segpipe.errors import DataError
from segpipe.pages.data_stats.compute import has_value
from segpipe.pages.data_stats.schema import Problem
from segpipe.pages.data_stats.views import (
    MAX_EDGE,
    Show,
    View,
    around_class,
    region_of,
    smallest_instance,
    whole,
)
from segpipe.pages.data_uris import layer_uri, photo_uri
from segpipe.progress import track
from segpipe.samples import ClassTable
from segpipe.words import counted

if TYPE_CHECKING:
    import pandas as pd

_MAX_PROBLEM_PICTURES = 24
_PROBLEM_EDGE = 168
"""Longest edge of a picture of an image with a problem, in pixels."""

_RANDOM_IMAGES = 18
_RARE_CLASSES = 4
_IMAGES_PER_CLASS = 3
_SMALLEST = 6
_IMAGES_PER_EXTREME = 2
_MAX_BYTES = 6 << 20
"""Budget for all pictures, in bytes of base64. About fifty photographs need a third of it."""

Record = dict[str, Any]
"""A row of the manifest."""
V = TypeVar("V", int, float)


@dataclass(frozen=True)
class ExampleImage:
    """One picture of the page: two `data:` addresses of the same size, and text."""

    photo: str
    labels: str
    """The layer of labels, which lies over the photograph."""
    width: int
    height: int
    key: str
    caption: str
    """The reason why it is shown, such as "darkest"; may be empty."""
    origin: str
    """Split and group."""


@dataclass(frozen=True)
class _Choice:
    """An image to draw."""

    section: str
    caption: str
    row: Record
    show: Show


def draw_examples(rows: pd.DataFrame, dataset: Dataset, limits: DataParams) -> dict[str, list[ExampleImage]]:
    """Draw the example images of the page. Only one image is in memory at a time.

    Images are chosen by their numbers in the manifest and, for "random", by their hash, so that the page only changes if the data
    change.

    Args:
        rows: The usable rows of the manifest.
        dataset: The dataset; images that it does not hold are left out.
        limits: Limits on what is decoded.

    Returns:
        The pictures by section: "rarest", "smallest", "extremes", "random".
    """
    items = {item.key: item for item in dataset.items}
    present = rows[rows["key"].isin(items.keys())].sort_values("sha256")
    records: list[Record] = present.to_dict("records")  # type: ignore[assignment]
    classes = dataset.classes
    choices = [*_rarest(records, classes), *_smallest(records, classes), *_extremes(records), *_random(records)]
    sections: dict[str, list[ExampleImage]] = {"rarest": [], "smallest": [], "extremes": [], "random": []}
    size = 0
    for choice in track(choices, "drawing", len(choices)):
        if size > _MAX_BYTES:
            break
        sample = load_sample(items[choice.row["key"]], classes, limits)
        origin = choice.row["split"] + (f" · {sample.group}" if sample.group else "")
        example = _draw(choice.show(sample), classes, sample.key, choice.caption, origin)
        sections[choice.section].append(example)
        size += len(example.photo) + len(example.labels)
    return sections


def problem_pictures(problems: list[Problem], dataset: Dataset, limits: DataParams) -> dict[str, str]:
    """Draw small pictures of the images that problems are about.

    Args:
        problems: The findings of validation.
        dataset: The dataset.
        limits: Limits on what is decoded.

    Returns:
        `data:` addresses by file; images that cannot be read are left out.
    """
    paths = {item.image.relative_to(dataset.root).as_posix(): item.image for item in dataset.items}
    named = [example.file for problem in problems for example in problem.examples if example.file in paths]
    pictures = {}
    for file in list(dict.fromkeys(named))[:_MAX_PROBLEM_PICTURES]:
        assert file is not None, "only files of the dataset are listed"
        with contextlib.suppress(DataError):  # an image that cannot be read is itself the problem
            pictures[file] = photo_uri(thumbnail(read_image(paths[file], limits), _PROBLEM_EDGE))
    return pictures


def _rarest(records: list[Record], classes: ClassTable) -> list[_Choice]:
    """For each of the rarest classes, choose the images with most of it."""
    counts = np.array([row["class_pixels"] for row in records], np.int64).reshape(len(records), len(classes))
    totals = counts.sum(0)
    present = [int(index) for index in np.argsort(totals, kind="stable") if totals[index]]
    return [
        _Choice("rarest", classes.names[index], records[row], around_class(index, classes.labelling))
        for index in present[: min(_RARE_CLASSES, len(present) - 1)]
        for row in np.argsort(-counts[:, index], kind="stable")[:_IMAGES_PER_CLASS]
        if counts[row, index]
    ]


def _smallest(records: list[Record], classes: ClassTable) -> list[_Choice]:
    """Choose the images with the smallest instances or, if there are no instances, with the smallest regions."""
    areas = [(min(areas), row) for row in records if has_value(areas := row["instance_areas"]) and len(areas)]
    if areas:
        return [
            _Choice("smallest", _size(area, row), row, smallest_instance) for area, row in _lowest(areas, _SMALLEST)
        ]
    regions = [(int(n), row) for row in records if has_value(n := row["smallest_component"]) and n > 0]
    return [
        _Choice("smallest", _size(pixels, row), row, region_of(pixels, classes.labelling))
        for pixels, row in _lowest(regions, _SMALLEST)
    ]


def _extremes(records: list[Record]) -> list[_Choice]:
    """Choose the images with the lowest and the highest size, brightness and sharpness."""
    channels = Counter(row["channels"] for row in records).most_common(1)
    alike = [row for row in records if channels and row["channels"] == channels[0][0]]
    depths = [(row, row["depth"] if has_value(row["depth"]) else 1) for row in records]
    measures: dict[tuple[str, str], list[tuple[float, Record]]] = {
        ("smallest", "largest"): [(int(row["height"] * row["width"] * depth), row) for row, depth in depths],
        ("darkest", "brightest"): [(float(np.mean(row["mean"])), row) for row in alike],
        ("blurriest", "sharpest"): [(float(v), row) for row in records if has_value(v := row["sharpness"])],
    }
    choices = []
    for (low, high), values in measures.items():
        if len({value for value, _ in values}) < 2:
            continue
        each = min(_IMAGES_PER_EXTREME, len(values) // 2)
        highest = _lowest([(-value, row) for value, row in values], each)
        choices += [_Choice("extremes", low, row, whole) for _, row in _lowest(values, each)]
        choices += [_Choice("extremes", high, row, whole) for _, row in highest]
    return choices


def _random(records: list[Record]) -> list[_Choice]:
    """Choose the first images in the order of their hashes, which is as good as random."""
    return [_Choice("random", "", row, whole) for row in records[:_RANDOM_IMAGES]]


def _size(pixels: int, row: Record) -> str:
    return counted(int(pixels), "voxel" if has_value(row["depth"]) else "pixel")


def _lowest(values: list[tuple[V, Record]], most: int) -> list[tuple[V, Record]]:
    return sorted(values, key=lambda pair: pair[0])[:most]


def _draw(view: View, classes: ClassTable, key: str, caption: str, origin: str) -> ExampleImage:
    """Draw a view at about `MAX_EDGE` pixels; small ones are enlarged first, so that outlines stay thin."""
    height, width = view.labels.shape
    scale = MAX_EDGE / max(height, width)
    scale = scale if scale < 1 else float(int(scale))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    enlarged = cv2.resize(view.picture, size, interpolation=cv2.INTER_CUBIC) if scale > 1 else None
    picture = thumbnail(view.picture, MAX_EDGE) if enlarged is None else enlarged
    labels = cv2.resize(view.labels, size, interpolation=cv2.INTER_NEAREST)
    ids = None if view.ids is None else cv2.resize(view.ids, size, interpolation=cv2.INTER_NEAREST)
    layer = label_layer(labels, classes.palette, ids)
    if view.box:
        _frame(layer, [round(v * scale) for v in view.box])
    return ExampleImage(photo_uri(picture), layer_uri(layer), size[0], size[1], key, caption, origin)


def _frame(layer: np.ndarray, box: list[int]) -> None:
    """Draw a white frame with a black rim some pixels around a box (x, y, width, height)."""
    x, y, w, h = box
    corners = (x - 7, y - 7), (x + w + 6, y + h + 6)
    cv2.rectangle(layer, *corners, (0, 0, 0, 255), 4)
    cv2.rectangle(layer, *corners, (255, 255, 255, 255), 2)

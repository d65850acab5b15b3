"""Which images the page shows, and as what: a photograph, and its labels as a layer that can be lifted off."""

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
from segpipe.pages.data_stats.views import MAX_EDGE, Show, View, around_class, region_of, smallest_instance, whole
from segpipe.pages.data_uris import layer_uri, photo_uri
from segpipe.pages.environment import count
from segpipe.progress import track
from segpipe.samples import ClassTable

if TYPE_CHECKING:
    import pandas as pd

_PROBLEMS, _THUMB = 24, 168
"""How many images with problems are shown, and the longest edge of their pictures."""
_RANDOM = 18
_RAREST = 4
_EACH = 3
_SMALLEST = 6
_MOST_BYTES = 6 << 20
"""Of all pictures together. Some fifty photographs take a third of that; of fifty pictures of noise the last are left out."""

Record = dict[str, Any]
"""A row of the manifest."""
V = TypeVar("V", int, float)


@dataclass(frozen=True)
class ExampleImage:
    """One picture of the page: two `data:` addresses of one size, and words."""

    photo: str
    labels: str
    width: int
    height: int
    key: str
    caption: str
    """What there is to see."""
    origin: str
    """Split and group."""


@dataclass(frozen=True)
class _Wish:
    section: str
    caption: str
    row: Record
    show: Show


def draw_examples(rows: pd.DataFrame, dataset: Dataset, limits: DataParams) -> dict[str, list[ExampleImage]]:
    """The pictures, by section: "rarest", "smallest", "extremes", "random". One image is in memory at a time.

    rows: of a manifest, that can be trained on. They are chosen by their numbers and, for "random", by hash, so that the page
    changes with the data alone.
    """
    here = {item.key: item for item in dataset.items}
    kept = rows[rows["key"].isin(here.keys())].sort_values("sha256")
    records: list[Record] = kept.to_dict("records")  # type: ignore[assignment]
    classes = dataset.classes
    wishes = [*_rarest(records, classes), *_smallest(records, classes), *_extremes(records), *_random(records)]
    found: dict[str, list[ExampleImage]] = {"rarest": [], "smallest": [], "extremes": [], "random": []}
    size = 0
    for wish in track(wishes, "drawing", len(wishes)):
        if size > _MOST_BYTES:
            break
        sample = load_sample(here[wish.row["key"]], dataset.classes, limits)
        origin = wish.row["split"] + (f" · {sample.group}" if sample.group else "")
        look = _draw(wish.show(sample), dataset.classes, sample.key, wish.caption, origin)
        found[wish.section].append(look)
        size += len(look.photo) + len(look.labels)
    return found


def problem_pictures(problems: list[Problem], dataset: Dataset, limits: DataParams) -> dict[str, str]:
    """Small pictures of the images that problems name, as `data:` addresses by file; none of those that cannot be read."""
    here = {item.image.relative_to(dataset.root).as_posix(): item.image for item in dataset.items}
    named = [example.file for problem in problems for example in problem.examples if example.file in here]
    found = {}
    for file in list(dict.fromkeys(named))[:_PROBLEMS]:
        assert file is not None, "it is one of the dataset's"
        with contextlib.suppress(DataError):  # that it cannot be read is the problem itself
            found[file] = photo_uri(thumbnail(read_image(here[file], limits), _THUMB))
    return found


def _rarest(records: list[Record], classes: ClassTable) -> list[_Wish]:
    """For each of the rarest classes, the images that have most of it."""
    counts = np.array([row["class_pixels"] for row in records], np.int64).reshape(len(records), len(classes))
    totals = counts.sum(0)
    present = [int(index) for index in np.argsort(totals, kind="stable") if totals[index]]
    return [
        _Wish("rarest", classes.names[index], records[place], around_class(index, classes.labelling))
        for index in present[: min(_RAREST, len(present) - 1)]
        for place in np.argsort(-counts[:, index], kind="stable")[:_EACH]
        if counts[place, index]
    ]


def _smallest(records: list[Record], classes: ClassTable) -> list[_Wish]:
    """The smallest object (or region of a class) of the images in which it is smallest."""
    objects = [(min(areas), row) for row in records if has_value(areas := row["instance_areas"]) and len(areas)]
    if objects:
        return [_Wish("smallest", _size(n, row), row, smallest_instance) for n, row in _lowest(objects, _SMALLEST)]
    regions = [(int(n), row) for row in records if has_value(n := row["smallest_component"]) and n > 0]
    told = classes.labelling
    return [_Wish("smallest", _size(n, row), row, region_of(n, told)) for n, row in _lowest(regions, _SMALLEST)]


def _extremes(records: list[Record]) -> list[_Wish]:
    """Both ends of what can be told from numbers, where images differ in it."""
    channels = Counter(row["channels"] for row in records).most_common(1)
    alike = [row for row in records if channels and row["channels"] == channels[0][0]]
    deep = [(row, row["depth"] if has_value(row["depth"]) else 1) for row in records]
    measures: dict[tuple[str, str], list[tuple[float, Record]]] = {
        ("smallest", "largest"): [(int(row["height"] * row["width"] * depth), row) for row, depth in deep],
        ("darkest", "brightest"): [(float(np.mean(row["mean"])), row) for row in alike],
        ("blurriest", "sharpest"): [(float(v), row) for row in records if has_value(v := row["sharpness"])],
    }
    wishes = []
    for (low, high), values in measures.items():
        if len({value for value, _ in values}) < 2:
            continue
        each = min(2, len(values) // 2)
        wishes += [_Wish("extremes", low, row, whole) for _, row in _lowest(values, each)]
        wishes += [_Wish("extremes", high, row, whole) for _, row in _lowest([(-v, row) for v, row in values], each)]
    return wishes


def _random(records: list[Record]) -> list[_Wish]:
    """Drawn by hash."""
    return [_Wish("random", "", row, whole) for row in records[:_RANDOM]]


def _size(pixels: int, row: Record) -> str:
    return count(int(pixels), "voxel" if has_value(row["depth"]) else "pixel")


def _lowest(values: list[tuple[V, Record]], most: int) -> list[tuple[V, Record]]:
    return sorted(values, key=lambda pair: pair[0])[:most]


def _draw(view: View, classes: ClassTable, key: str, caption: str, origin: str) -> ExampleImage:
    """Both layers of a view, brought to about `EDGE` pixels; small ones are enlarged, so that outlines stay thin."""
    height, width = view.labels.shape
    scale = MAX_EDGE / max(height, width)
    scale = scale if scale < 1 else float(int(scale))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    enlarged = scale > 1
    picture = (
        cv2.resize(view.picture, size, interpolation=cv2.INTER_CUBIC) if enlarged else thumbnail(view.picture, MAX_EDGE)
    )
    labels = cv2.resize(view.labels, size, interpolation=cv2.INTER_NEAREST)
    ids = None if view.ids is None else cv2.resize(view.ids, size, interpolation=cv2.INTER_NEAREST)
    layer = label_layer(labels, classes.palette, ids)
    if view.box:
        _mark(layer, [round(v * scale) for v in view.box])
    return ExampleImage(photo_uri(picture), layer_uri(layer), size[0], size[1], key, caption, origin)  # type: ignore[arg-type]


def _mark(layer: np.ndarray, box: list[int]) -> None:
    """A frame, white in black, some pixels around a box of a layer."""
    x, y, w, h = box
    corners = (x - 7, y - 7), (x + w + 6, y + h + 6)
    cv2.rectangle(layer, *corners, (0, 0, 0, 255), 4)
    cv2.rectangle(layer, *corners, (255, 255, 255, 255), 2)

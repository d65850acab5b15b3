"""Files of labelme and Label Studio with a part replaced by something odd: a result, or an error of one line, never a traceback."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segpipe.data.formats.annotations.label_studio_json import read_label_studio
from segpipe.data.formats.annotations.labelme import read_labelme
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import ReadOptions, ReadResult
from segpipe.errors import DataError
from tests.data.formats.annotations.test_label_studio_json import encode_brush, polygon, rectangle, region, task
from tests.data.formats.annotations.test_labelme import mask_shape, shape, square
from tests.worlds.layouts import HEIGHT, WIDTH, photo

ODD: list[Any] = [
    None, True, -1, 0, 10**30, 1e308, float("nan"), float("inf"), "", "x" * 5000, "\0", "../../etc/passwd", "C:\\\\a\\\\a.png",
    "http://[::1", [], {}, [[]], [None], [[1, 2]], {"a": 1}, "é%zz?d=%00",
]  # fmt: skip
MUTATIONS = 400


def labelme_document() -> dict[str, Any]:
    shapes = [
        square("cell", 1, 1, 4, group=1) | {"flags": {"cut": True}},
        mask_shape("cell", 8, 8, np.ones((3, 4))) | {"group_id": 1},
        shape("nucleus", [[10, 2], [14, 6]], "rectangle"),
        shape("nucleus", [[16, 2], [20, 2], [20, 6], [16, 6]], "rotation"),
        shape("axon", [[5, 12], [7, 12]], "circle"),
        shape("tip", [[5, 12]], "point"),
    ]
    sizes = {"imageHeight": HEIGHT, "imageWidth": WIDTH}
    return {"version": "5", "flags": {}, "shapes": shapes, "imagePath": "a.png", "imageData": None, **sizes}


def label_studio_document() -> list[Any]:
    brush = np.zeros((HEIGHT, WIDTH), np.uint8)
    brush[3:6, 3:9] = 255
    regions = [
        polygon(1, 1, 4, 3),
        rectangle(8, 2, 5, 4, 30),
        region({"rle": encode_brush(brush), "format": "rle"}, kind="brushlabels"),
        region({"x": 50, "y": 50, "radiusX": 9, "radiusY": 5, "rotation": 10}, kind="ellipselabels"),
    ]
    return [task(1, "/data/upload/1/a1b2c3d4-a.png", regions, regions[:1]), task(2, "b.png", [], file_upload="b.png")]


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each part of JSON data."""
    if path:
        yield path
    for key, part in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from places(part, (*path, key))


def mutated(document: Any, rng: random.Random) -> Any:
    """Return a copy in which one part is replaced by something odd, or removed."""
    changed = copy.deepcopy(document)
    *path, last = rng.choice(list(places(changed)))
    parent = changed
    for key in path:
        parent = parent[key]
    if rng.random() < 0.2:
        del parent[last]
    else:
        parent[last] = rng.choice(ODD)
    return changed


@pytest.mark.parametrize(
    ("read", "document"),
    [(read_labelme, labelme_document()), (read_label_studio, label_studio_document())],
    ids=["labelme", "label-studio"],
)
def test_mutated_documents(source: Path, read: Callable[[SourceProbe, ReadOptions], ReadResult], document: Any) -> None:
    for name in ("a", "b"):
        photo(source / f"{name}.png")
    rng = random.Random(0)
    usable = 0
    for _ in range(MUTATIONS):
        changed = mutated(document, rng)
        (source / "x.json").write_text(json.dumps(changed))
        try:
            result = read(SourceProbe(source), ReadOptions())
            for item in result.items:
                if item.draw is not None:
                    usable += bool(item.draw(HEIGHT, WIDTH).mask.any())
        except DataError as error:
            assert "\n" not in str(error)
    assert usable > MUTATIONS / 4

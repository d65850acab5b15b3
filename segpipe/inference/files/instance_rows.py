"""What objects look like outside: a map of their ids as a file, a row for each with its class, score, box and pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from segpipe.samples import ClassTable, Instances


class Box(BaseModel):
    """Where an object lies, in pixels."""

    x: int
    y: int
    width: int
    height: int


class RunLengths(BaseModel):
    """COCO's uncompressed run lengths: pixels out and in, by turns, down the columns from the left; `size` is height, width."""

    size: tuple[int, int]
    counts: list[int]


class InstanceRow(BaseModel):
    """One object of an image."""

    id: int
    """Its value in the map of ids."""
    name: str
    """Its class."""
    score: float
    """How sure the model is, 0..1."""
    box: Box
    area: int
    """Pixels."""
    rle: RunLengths | None = None


def ids_png(instances: Instances) -> bytes:
    """A PNG (H, W), uint16: 0 where there is no object, k where object k is."""
    from segpipe.data.images import encode_png

    return encode_png(instances.ids)


def instance_rows(instances: Instances, classes: ClassTable, masks: bool = False) -> list[InstanceRow]:
    """A row for each object of an image (H, W), in the order of the ids; `masks` adds the run lengths."""
    rows = []
    areas = instances.areas()
    for place, ((top, bottom), (left, right)) in enumerate(instances.boxes.tolist()):
        number = place + 1
        rows.append(
            InstanceRow(
                id=number,
                name=classes.names[int(instances.classes[place])],
                score=round(float(instances.scores[place]), 6),
                box=Box(x=left, y=top, width=right - left, height=bottom - top),
                area=int(areas[place]),
                rle=_run_lengths(instances.ids[top:bottom, left:right] == number, top, left, instances.ids.shape)
                if masks
                else None,
            )
        )
    return rows


def _run_lengths(part: npt.NDArray[np.bool_], top: int, left: int, shape: tuple[int, ...]) -> RunLengths:
    """Of a mask that is `part`, (h, w), from row `top` and column `left` on, and nothing elsewhere in an image (H, W)."""
    height, width = shape
    columns, rows = np.nonzero(part.T)
    places = (columns + left) * height + rows + top
    breaks = np.flatnonzero(np.diff(places) != 1) + 1
    starts = places[np.concatenate([[0], breaks])]
    ends = places[np.concatenate([breaks - 1, [-1]])] + 1
    edges = np.concatenate([[0], np.stack([starts, ends], 1).reshape(-1), [height * width]])
    counts = np.diff(edges).tolist()
    return RunLengths(size=(height, width), counts=counts if counts[-1] else counts[:-1])

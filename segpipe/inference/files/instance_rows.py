"""Instances as files and tables: a map of their ids, and one row per instance with its class, score, box and pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from segpipe.samples import ClassTable, Instances


class Box(BaseModel):
    """Bounding box of an instance, in pixels."""

    x: int
    y: int
    width: int
    height: int


class RunLengths(BaseModel):
    """A mask as COCO's uncompressed run lengths.

    `counts` are alternating numbers of pixels outside and inside the mask, column by column from the left, starting outside; `size` is
    height, width.
    """

    size: tuple[int, int]
    counts: list[int]


class InstanceRow(BaseModel):
    """One instance of an image."""

    id: int
    """Its value in the map of ids."""
    name: str
    """Name of its class."""
    score: float
    """Confidence of the model, 0..1."""
    box: Box
    area: int
    """Number of pixels."""
    rle: RunLengths | None = None
    """Its pixels."""


def ids_png(instances: Instances) -> bytes:
    """Encode the ids of instances as a PNG (H, W), uint16: k for the pixels of instance k, 0 elsewhere."""
    from segpipe.data.images import encode_png

    return encode_png(instances.ids)


def instance_rows(instances: Instances, classes: ClassTable, masks: bool = False) -> list[InstanceRow]:
    """Describe each instance of an image, in the order of the ids.

    Args:
        instances: The instances of an image (H, W).
        classes: The model's class table.
        masks: Add the run lengths.
    """
    rows = []
    areas = instances.areas()
    for index, ((top, bottom), (left, right)) in enumerate(instances.boxes.tolist()):
        number = index + 1
        rle = None
        if masks:
            mask = instances.ids[top:bottom, left:right] == number
            rle = _run_lengths(mask, top, left, instances.ids.shape)
        rows.append(
            InstanceRow(
                id=number,
                name=classes.names[int(instances.classes[index])],
                score=round(float(instances.scores[index]), 6),
                box=Box(x=left, y=top, width=right - left, height=bottom - top),
                area=int(areas[index]),
                rle=rle,
            )
        )
    return rows


def _run_lengths(mask: npt.NDArray[np.bool_], top: int, left: int, shape: tuple[int, ...]) -> RunLengths:
    """Encode a mask (h, w) whose first pixel is at row `top` and column `left` of an image (H, W)."""
    height, width = shape
    columns, rows = np.nonzero(mask.T)
    positions = (columns + left) * height + rows + top
    breaks = np.flatnonzero(np.diff(positions) != 1) + 1
    starts = positions[np.concatenate([[0], breaks])]
    ends = positions[np.concatenate([breaks - 1, [-1]])] + 1
    edges = np.concatenate([[0], np.stack([starts, ends], 1).reshape(-1), [height * width]])
    counts = np.diff(edges).tolist()
    return RunLengths(size=(height, width), counts=counts if counts[-1] else counts[:-1])

"""The attributes of a test image by which images are grouped into slices.

| attribute | source |
|---|---|
| `size` | "width x height", of a volume "width x height x depth", in pixels |
| `pixels` | the number of pixels |
| `brightness` | mean of the stored values |
| `colour` | of images with three channels: "grey" if the channels are nearly equal, else "coloured" |
| `object size` | median area of an instance in pixels; without instances, of a connected region of a class |
| `group` | patient, slide, video |
| any other name | a column of samples.csv, which artifacts/splits.parquet carries |

Which classes an image shows follows from the counts of its pixels (`segpipe.evaluation.scores`).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segpipe.labels import Labelling
from segpipe.samples import IGNORE, MAX_CLASSES, Sample

_EXCLUSIVE = Labelling(MAX_CLASSES)

AttributeValue = float | str
SliceAttributes = Mapping[str, AttributeValue]
"""Attributes by name. Numbers are cut into thirds, each text is a slice. What an image lacks has no key."""

MEASURED = ("size", "pixels", "brightness", "colour", "object size", "group")
"""Attributes that are measured; a column of samples.csv with one of these names is not used."""

_OTHER_COLUMNS = {"key", "path", "mask_path", "instances_path", "group", "split", "fold"}
"""Columns of splits.parquet that are not attributes."""
_MAX_GREY_SPREAD = 0.02
"""An image is grey if its channels differ by at most this share of its range, on average."""
_COLOUR_STEP = 4
"""Colour is judged on every fourth pixel along each axis."""


def image_attributes(
    sample: Sample, background: bool, columns: SliceAttributes | None = None, labelling: Labelling = _EXCLUSIVE
) -> dict[str, AttributeValue]:
    """Measure the attributes of one labelled image.

    Args:
        sample: the image with its labels.
        background: whether class 0 is a background, whose regions do not count as instances.
        columns: attributes from samples.csv, by column.
        labelling: the meaning of the labels.

    Returns:
        The attributes by name.
    """
    assert sample.labels is not None, "only labelled images are scored"
    shape = sample.labels.shape
    attributes: dict[str, AttributeValue] = {
        **{name: value for name, value in (columns or {}).items() if name not in MEASURED},
        "size": " x ".join(map(str, (*shape[:-3:-1], *shape[:-2]))),
        "pixels": float(sample.labels.size),
        "brightness": round(float(sample.image.mean(dtype=np.float64)), 6),
    }
    if sample.image.shape[-1] == 3:
        attributes["colour"] = "grey" if _is_grey(sample.image) else "coloured"
    if (area := median_instance_area(sample, background, labelling)) is not None:
        attributes["object size"] = area
    if sample.group is not None:
        attributes["group"] = sample.group
    return attributes


def _is_grey(image: np.ndarray) -> bool:
    pixels = image[..., ::_COLOUR_STEP, ::_COLOUR_STEP, :].astype(np.float64)
    spread = np.ptp(pixels, axis=-1).mean()
    return bool(spread <= _MAX_GREY_SPREAD * max(float(np.ptp(pixels)), 1e-12))


def median_instance_area(sample: Sample, background: bool, labelling: Labelling = _EXCLUSIVE) -> float | None:
    """Return the median area of an image's instances in pixels; ignored pixels do not count.

    Args:
        sample: the image with its labels. Without instance ids, connected regions of the classes are measured.
        background: whether class 0 is a background, whose regions do not count.
        labelling: the meaning of the labels.

    Returns:
        The median, or None if the image has no instances.
    """
    assert sample.labels is not None
    if sample.instances is not None:
        ids = np.where(sample.labels == IGNORE, 0, sample.instances)
        areas = np.bincount(ids.reshape(-1))[1:]
    else:
        present = [int(c) for c in np.flatnonzero(labelling.count_pixels(sample.labels)) if not (background and c == 0)]
        by_class = (_region_areas(labelling.where(sample.labels, c)) for c in present)
        areas = np.concatenate([np.empty(0, np.int64), *by_class])
    areas = areas[areas > 0]
    return float(np.median(areas)) if areas.size else None


def _region_areas(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the pixels of each connected region; pixels that touch at corners are connected."""
    if mask.ndim == 2:
        import cv2

        _, _, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
        return stats[1:, cv2.CC_STAT_AREA].astype(np.int64)
    from scipy import ndimage

    region_ids, _ = ndimage.label(mask, np.ones((3,) * mask.ndim, int))
    return np.bincount(region_ids.reshape(-1))[1:]


def read_columns(splits: Path) -> dict[str, dict[str, AttributeValue]]:
    """Read the attributes that splits.parquet carries from samples.csv.

    Args:
        splits: artifacts/splits.parquet.

    Returns:
        {key: {column: value}}; empty if the file does not exist. The values of a column are numbers if all of them are.
    """
    if not splits.exists():
        return {}
    import pyarrow.parquet as pq

    table = pq.ParquetFile(splits).read()  # `pq.read_table` would import pandas
    names = [name for name in table.column_names if name not in _OTHER_COLUMNS]
    columns = {name: _parse_values(table.column(name).to_pylist()) for name in names}
    keys = table.column("key").to_pylist()
    return {key: {n: value for n in names if (value := columns[n][i]) is not None} for i, key in enumerate(keys)}


def _parse_values(cells: Sequence[object]) -> list[AttributeValue | None]:
    texts = [None if cell in (None, "") else str(cell) for cell in cells]
    with contextlib.suppress(ValueError):
        numbers = [None if text is None else float(text) for text in texts]
        if all(number is None or math.isfinite(number) for number in numbers):
            return list(numbers)
    return list(texts)

"""What is known of a test image beside its score: the traits by which images are cut into slices.

| trait | from |
|---|---|
| `size` | "width x height", of a volume with "x depth", in pixels |
| `pixels` | their number |
| `brightness` | mean of the stored values |
| `colour` | of images with three channels: grey where all are nearly alike, else coloured |
| `object size` | median pixels of an object: of instances where there are some, else of connected regions of the classes |
| `group` | patient, slide, video |
| any other name | a column of samples.csv, as artifacts/splits.parquet carries it |

Which classes are there is told by the counts that every score follows from.
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
"""By name; numbers are cut into quantiles, words into one slice each. What an image lacks has no key."""

OWN = ("size", "pixels", "brightness", "colour", "object size", "group")
"""Traits that are measured; a column of the same name gives way to them."""

_KNOWN_COLUMNS = {"key", "path", "mask_path", "instances_path", "group", "split", "fold"}
_GREY = 0.02
"""An image is grey where its channels differ by less than this share of its range, on average."""
_EVERY = 4
"""Colour is judged on every fourth pixel each way."""


def image_attributes(
    sample: Sample, background: bool, columns: SliceAttributes | None = None, labelling: Labelling = _EXCLUSIVE
) -> dict[str, AttributeValue]:
    """The traits of one labelled image.

    background: whether class 0 stands for nothing in particular, so that its regions are no objects. columns: what the tables
    say of this image, by column. labelling: what its labels mean.
    """
    assert sample.labels is not None, "only labelled images are scored"
    shape = sample.labels.shape
    found: dict[str, AttributeValue] = {
        **{name: value for name, value in (columns or {}).items() if name not in OWN},
        "size": " x ".join(map(str, (*shape[:-3:-1], *shape[:-2]))),
        "pixels": float(sample.labels.size),
        "brightness": round(float(sample.image.mean(dtype=np.float64)), 6),
    }
    if sample.image.shape[-1] == 3:
        found["colour"] = "grey" if _is_grey(sample.image) else "coloured"
    if (size := median_instance_area(sample, background, labelling)) is not None:
        found["object size"] = size
    if sample.group is not None:
        found["group"] = sample.group
    return found


def _is_grey(image: np.ndarray) -> bool:
    seen = image[..., ::_EVERY, ::_EVERY, :].astype(np.float64)
    spread = np.ptp(seen, axis=-1).mean()
    return bool(spread <= _GREY * max(float(np.ptp(seen)), 1e-12))


def median_instance_area(sample: Sample, background: bool, labelling: Labelling = _EXCLUSIVE) -> float | None:
    """The median pixels of an image's objects; None where it has none. Ignored pixels are in no object."""
    assert sample.labels is not None
    if sample.instances is not None:
        ids = np.where(sample.labels == IGNORE, 0, sample.instances)
        areas = np.bincount(ids.reshape(-1))[1:]
    else:
        present = [int(c) for c in np.flatnonzero(labelling.pixels(sample.labels)) if not (background and c == 0)]
        own = (_regions(labelling.where(sample.labels, c)) for c in present)
        areas = np.concatenate([np.empty(0, np.int64), *own])
    areas = areas[areas > 0]
    return float(np.median(areas)) if areas.size else None


def _regions(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Pixels of each connected region, corners included."""
    if mask.ndim == 2:
        import cv2

        _, _, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
        return stats[1:, cv2.CC_STAT_AREA].astype(np.int64)
    from scipy import ndimage

    numbered, _ = ndimage.label(mask, np.ones((3,) * mask.ndim, int))
    return np.bincount(numbered.reshape(-1))[1:]


def read_columns(splits: Path) -> dict[str, dict[str, AttributeValue]]:
    """{key: {column: value}} of the columns that splits.parquet carries from samples.csv; empty where there is no such file.
    A column is of numbers where all of its values are."""
    if not splits.exists():
        return {}
    import pyarrow.parquet as pq

    table = pq.read_table(splits)
    names = [name for name in table.column_names if name not in _KNOWN_COLUMNS]
    columns = {name: _values(table.column(name).to_pylist()) for name in names}
    keys = table.column("key").to_pylist()
    return {key: {n: value for n in names if (value := columns[n][i]) is not None} for i, key in enumerate(keys)}


def _values(words: Sequence[object]) -> list[AttributeValue | None]:
    told = [None if word in (None, "") else str(word) for word in words]
    with contextlib.suppress(ValueError):
        numbers = [None if word is None else float(word) for word in told]
        if all(n is None or math.isfinite(n) for n in numbers):
            return list(numbers)
    return list(told)

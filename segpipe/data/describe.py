"""What the manifest says of one image: its files decoded once, hashed, measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.config import DataParams
from segpipe.data.dataset import Item
from segpipe.data.drawing import thumbnail
from segpipe.data.images import decode_image, decode_mask, max_bytes
from segpipe.errors import DataError
from segpipe.files import read_bytes, sha256_bytes
from segpipe.samples import ClassTable

Row = dict[str, Any]
WINDOW = (0.5, 99.5)
"""The percentiles that the intensity window lies between."""

_BAND = 1 << 20

COLUMNS = {
    "key": str, "path": str, "mask_path": str, "instances_path": str,
    "sha256": str, "mask_sha256": str, "instances_sha256": str, "phash": str,
    "height": int, "width": int, "channels": int, "dtype": str, "mask_height": int, "mask_width": int,
    "mean": list[float], "std": list[float], "low": list[float], "high": list[float],
    "class_pixels": list[int], "ignored_pixels": int, "unknown_values": str, "n_instances": int,
    "group": str, "split": str, "split_given": bool, "error": str,
}  # fmt: skip
"""The columns of a manifest (`segpipe.data.manifest` tells what they mean)."""


def describe_item(item: Item, root: Path, classes: ClassTable, limits: DataParams) -> Row:
    """All columns of one item; `split` is None where it is not given."""
    row: Row = dict.fromkeys(COLUMNS)
    row |= {
        "key": item.key, "group": item.group, "split": item.split, "split_given": item.split is not None,
        "path": _relative(item.image, root), "mask_path": _relative(item.mask, root),
        "instances_path": _relative(item.instances, root),
    }  # fmt: skip
    readers: dict[str, Callable[[bytes, str, float], Row]] = {
        "path": _describe_image,
        "mask_path": partial(_describe_mask, classes),
        "instances_path": _describe_instances,
    }
    for column, describe in readers.items():
        if row[column] is None:
            continue
        try:
            content = read_bytes(root / row[column], max_bytes(limits))
            row |= {column.replace("path", "sha256").removeprefix("_"): sha256_bytes(content)}
            row |= describe(content, row[column], limits.max_megapixels)
        except DataError as error:  # a stage's out must not name a machine's folders
            told = DataError(error.what, where=row[column], found=error.found, expected=error.expected, fix=error.fix)
            row["error"] = row["error"] or str(told)
    if row["error"] is None and row["n_instances"] is not None:
        row["error"] = _instances_misfit(row)
    row.pop("instances_size", None)
    return row


def _describe_image(content: bytes, where: str, max_megapixels: float) -> Row:
    import imagehash
    from PIL import Image

    image = decode_image(content, where, max_megapixels)
    height, width, channels = image.shape
    mean, std, low, high = (
        list(column) for column in zip(*(moments(image[:, :, c]) for c in range(channels)), strict=True)
    )
    phash = imagehash.phash(Image.fromarray(thumbnail(image, 128)).convert("L"))
    return {
        "phash": str(phash), "height": height, "width": width, "channels": channels, "dtype": image.dtype.name,
        "mean": mean, "std": std, "low": low, "high": high,
    }  # fmt: skip


def _describe_mask(classes: ClassTable, content: bytes, where: str, max_megapixels: float) -> Row:
    mask = decode_mask(content, where, max_megapixels)
    counts = histogram(mask)
    present = {int(v): int(counts[v]) for v in np.flatnonzero(counts)}
    known = {*(spec.value for spec in classes.classes), *classes.ignore}
    return {
        "mask_height": mask.shape[0], "mask_width": mask.shape[1],
        "class_pixels": [present.get(spec.value, 0) for spec in classes.classes],
        "ignored_pixels": sum(present.get(value, 0) for value in classes.ignore),
        "unknown_values": json.dumps({v: n for v, n in present.items() if v not in known}),
    }  # fmt: skip


def _describe_instances(content: bytes, where: str, max_megapixels: float) -> Row:
    ids = decode_mask(content, where, max_megapixels)
    return {"n_instances": int((histogram(ids)[1:] > 0).sum()), "instances_size": ids.shape}


def _instances_misfit(row: Row) -> str | None:
    height, width = row["instances_size"]
    if (height, width) == (row["height"], row["width"]):
        return None
    return str(DataError(
        "not the size of its image", where=row["instances_path"], found=f"{width} x {height}",
        expected=f"{row['width']} x {row['height']}", fix="export image and instances at the same size",
    ))  # fmt: skip


def describe_orphan(mask: Path, root: Path) -> Row:
    """The row of a mask that has no image."""
    where = _relative(mask, root)
    told = DataError("a mask without an image", where=where, fix="put the image into images/, or remove the mask")
    return dict.fromkeys(COLUMNS) | {
        "key": mask.stem, "path": where, "split_given": False, "split": "train", "error": str(told)
    }  # fmt: skip


def _relative(path: Path | None, root: Path) -> str | None:
    return None if path is None else path.relative_to(root).as_posix()


def histogram(plane: np.ndarray) -> npt.NDArray[np.int64]:
    """(H, W), uint8 or uint16 -> how many pixels have each value, by value. Works in bands, so that memory stays small."""
    levels = 256 if plane.dtype == np.uint8 else 65536
    total = np.zeros(levels, np.int64)
    rows = max(1, _BAND // max(1, plane.shape[1]))
    for top in range(0, plane.shape[0], rows):
        total += np.bincount(plane[top : top + rows].ravel(), minlength=levels)
    return total


def moments(plane: np.ndarray) -> tuple[float, float, float, float]:
    """Mean, standard deviation, and the two percentiles of `WINDOW` (inverted CDF) of the values of a plane (H, W)."""
    if plane.dtype == np.float32:
        low, high = np.percentile(plane, WINDOW, method="inverted_cdf")
        return float(plane.mean(dtype=np.float64)), float(plane.std(dtype=np.float64)), float(low), float(high)
    counts = histogram(plane)
    values = np.arange(len(counts), dtype=np.float64)
    mean = float(counts @ values / plane.size)
    std = float(np.sqrt(counts @ (values - mean) ** 2 / plane.size))
    low, high = np.searchsorted(np.cumsum(counts), np.array(WINDOW) / 100 * plane.size)
    return mean, std, float(low), float(high)

"""Describe one image for the manifest: decode each of its files once, hash it and measure it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.config import DataParams
from segpipe.data.classes import is_background
from segpipe.data.dataset import Item
from segpipe.data.images import (
    Geometry,
    align_mask,
    channel_names,
    decode_geometry,
    decode_image_and_nodata,
    decode_mask_with_notes,
    max_bytes,
    stem_of,
)
from segpipe.data.images.statistics import (
    flat_rows,
    histogram,
    miniature,
    moments,
    perceptual_hash,
    reduce_to_grey,
    sharpness,
    value_range,
)
from segpipe.data.manifest.columns import COLUMNS, HASH_COLUMNS, Row
from segpipe.data.manifest.connected_components import Runs, component_sizes, find_runs
from segpipe.errors import DataError
from segpipe.files import read_bytes, sha256_bytes
from segpipe.samples import IGNORE, UNKNOWN, ClassTable

Decoder = Callable[[bytes, str, DataParams], tuple[Any, ...]]
"""Decodes the bytes of a file; the text names the file in errors. Returns the array, the conversions that were made, and
for an image which pixels have no data."""


def describe_item(item: Item, root: Path, classes: ClassTable, limits: DataParams) -> Row:
    """Compute all columns of one image except its fold; `split` is set only if samples.csv gives it.

    A file that cannot be read raises nothing: the row gets an `error`.
    """
    row = describe_paths(item, root)
    readers: dict[str, tuple[Decoder, Callable[[np.ndarray, Geometry | None], Row]]] = {
        "path": (decode_image_and_nodata, _describe_image),
        "mask_path": (decode_mask_with_notes, partial(_describe_mask, classes)),
        "instances_path": (decode_mask_with_notes, _describe_instances),
    }
    geometries: dict[str, Geometry | None] = {}
    nodata: npt.NDArray[np.bool_] | None = None
    for column, (decode, describe) in readers.items():
        if row[column] is None:
            continue
        try:
            array, geometries[column], missing = _load(row, column, root, limits, decode)
            if column == "path":
                nodata = missing
            else:
                array = align_mask(array, geometries[column], geometries.get("path"), row[column])
            if column == "mask_path" and nodata is not None and nodata.shape == array.shape:
                row |= _describe_mask(classes, array, geometries[column], nodata)
            else:
                row |= describe(array, geometries[column])
            if column == "path" and missing is not None and not missing.all():
                row |= _describe_values(array[~missing][:, None])
            del array
        except DataError as error:  # the output of a stage must not contain absolute paths
            relative = DataError(
                error.what, where=row[column], found=error.found, expected=error.expected, fix=error.fix
            )
            row["error"] = row["error"] or str(relative)
    if row["error"] is None and row["n_instances"] is not None:
        row["error"] = _instances_size_error(row)
    row.pop("instances_size", None)
    image_geometry, mask_geometry = geometries.get("path"), geometries.get("mask_path")
    size, mask_size = ([row[f"{prefix}{edge}"] for edge in ("depth", "height", "width")] for prefix in ("", "mask_"))
    if image_geometry and mask_geometry and size == mask_size:
        row["mask_offset"] = image_geometry.offset(mask_geometry, tuple(size))
    return row


def describe_paths(item: Item, root: Path) -> Row:
    """Return a row with only the columns that are known without opening a file."""
    return dict.fromkeys(COLUMNS) | {
        "key": item.key,
        "group": item.group,
        "split": item.split,
        "split_given": item.split is not None,
        "path": _relative(item.image, root),
        "mask_path": _relative(item.mask, root),
        "instances_path": _relative(item.instances, root),
    }


def describe_orphan(mask: Path, root: Path) -> Row:
    """Return the row of a mask without an image: a row with an `error`."""
    path = _relative(mask, root)
    error = DataError("a mask without an image", where=path, fix="put the image into images/, or remove the mask")
    return dict.fromkeys(COLUMNS) | {
        "key": stem_of(mask),
        "path": path,
        "split_given": False,
        "split": "train",
        "error": str(error),
    }


def _load(
    row: Row, column: str, root: Path, limits: DataParams, decode: Decoder
) -> tuple[np.ndarray, Geometry | None, npt.NDArray[np.bool_] | None]:
    """Read and decode a file, and put its hash and notes into the row. Its bytes are freed before anything is measured."""
    content = read_bytes(root / row[column], max_bytes(limits))
    row[HASH_COLUMNS[column]] = sha256_bytes(content)
    array, notes, *missing = decode(content, row[column], limits)
    prefix = column.removesuffix("path").removesuffix("_")
    if column == "path":
        row["channel_names"] = channel_names(content, row[column])
    row["notes"] = [*(row["notes"] or []), *(f"{prefix}: {note}" if prefix else note for note in notes)]
    return array, decode_geometry(content, row[column]), next(iter(missing), None)


def _describe_image(image: np.ndarray, geometry: Geometry | None) -> Row:
    picture = reduce_to_grey(image)
    return {
        "phash": perceptual_hash(picture),
        "miniature": miniature(picture),
        "depth": image.shape[0] if image.ndim == 4 else None,
        "height": image.shape[-3],
        "width": image.shape[-2],
        "channels": image.shape[-1],
        "dtype": image.dtype.name,
        "spacing": list(geometry.spacing) if geometry else None,
        "orientation": geometry.orientation if geometry else None,
        "sharpness": sharpness(image),
        **_describe_values(flat_rows(image)),
    }


def _describe_values(pixels: np.ndarray) -> Row:
    """Measure the values of pixels (H, W, C)."""
    mean, std, low, high = moments(pixels).tolist()
    smallest, largest, whole = value_range(pixels)
    return {
        "minimum": smallest,
        "maximum": largest,
        "whole_numbers": whole,
        "mean": mean,
        "std": std,
        "low": low,
        "high": high,
    }


def _describe_mask(
    classes: ClassTable, mask: np.ndarray, geometry: Geometry | None, nodata: npt.NDArray[np.bool_] | None = None
) -> Row:
    """Measure a mask (H, W) or (D, H, W). Where `nodata` is true, in the same shape, pixels count as ignored, as in training."""
    filler = None
    if nodata is not None:
        filler = _unused_value(mask, classes)
        mask = np.where(nodata, np.uint16(filler), mask)
    runs = find_runs(mask)
    counts = runs.count_pixels() if runs else histogram(flat_rows(mask, labels=True))
    values = np.flatnonzero(counts)
    pixels, labels = counts[values], classes.encode(values.astype(np.uint16))
    labels[values == filler] = IGNORE
    unknown = labels == UNKNOWN
    sizes = _component_sizes(classes, mask, runs) if runs else None
    return {
        "mask_depth": mask.shape[0] if mask.ndim == 3 else None,
        "mask_height": mask.shape[-2],
        "mask_width": mask.shape[-1],
        "mask_spacing": list(geometry.spacing) if geometry else None,
        "mask_orientation": geometry.orientation if geometry else None,
        "class_pixels": (pixels @ classes.labelling.members[labels]).tolist(),
        "ignored_pixels": int(pixels[labels == IGNORE].sum()),
        "unknown_values": json.dumps(dict(zip(values[unknown].tolist(), pixels[unknown].tolist(), strict=True))),
        "smallest_component": int(sizes.min()) if sizes is not None and len(sizes) else None,
    }


def _unused_value(mask: np.ndarray, classes: ClassTable) -> int:
    """Return the largest 16-bit value that neither a mask nor a class table uses."""
    used = {*np.unique(mask).tolist(), *(spec.value for spec in classes.classes), *classes.ignore}
    return next(value for value in range(65535, -1, -1) if value not in used)


def _component_sizes(classes: ClassTable, mask: np.ndarray, runs: Runs) -> np.ndarray | None:
    """Return the sizes of the connected components of all classes except the background; None if a class has too many runs."""
    if not classes.overlapping:
        foreground = classes.classes[1 if is_background(classes.names[0]) else 0 :]
        return component_sizes(runs.with_values([spec.value for spec in foreground]))[1]
    sizes, labels = [np.empty(0, np.int64)], classes.encode(mask)
    for class_id in range(1, len(classes)):
        class_runs = find_runs(classes.labelling.where(labels, class_id).astype(np.uint8))
        if class_runs is None:
            return None
        sizes.append(component_sizes(class_runs.with_values([1]))[1])
    return np.concatenate(sizes)


def _describe_instances(ids: np.ndarray, _: Geometry | None) -> Row:
    areas = histogram(flat_rows(ids, labels=True))[1:]
    areas = areas[areas > 0]
    return {"n_instances": len(areas), "instance_areas": areas.tolist(), "instances_size": ids.shape}


def _instances_size_error(row: Row) -> str | None:
    size = row["instances_size"]
    image_size = tuple(row[name] for name in ("depth", "height", "width") if row[name] is not None)
    if size == image_size:
        return None
    error = DataError(
        "not the size of its image",
        where=row["instances_path"],
        found=" x ".join(map(str, reversed(size))),
        expected=" x ".join(map(str, reversed(image_size))),
        fix="export image and instances at the same size",
    )
    return str(error)


def _relative(path: Path | None, root: Path) -> str | None:
    return None if path is None else path.relative_to(root).as_posix()

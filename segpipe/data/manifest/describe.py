"""What the manifest says of one image: its files decoded once, hashed, measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from segpipe.config import DataParams
from segpipe.data.classes import is_background
from segpipe.data.dataset import Item
from segpipe.data.images import Geometry, decode_geometry, decode_image_with_notes, decode_mask_with_notes, max_bytes, stem_of
from segpipe.data.images.statistics import flat_rows, histogram, miniature, moments, perceptual_hash, reduce_to_grey, sharpness
from segpipe.data.manifest.connected_components import Runs, find_runs, component_sizes
from segpipe.errors import DataError
from segpipe.files import read_bytes, sha256_bytes
from segpipe.samples import IGNORE, UNKNOWN, ClassTable

Row = dict[str, Any]
Decoder = Callable[[bytes, str, DataParams], tuple[Any, list[str]]]

COLUMNS = {
    "key": str, "path": str, "mask_path": str, "instances_path": str,
    "sha256": str, "mask_sha256": str, "instances_sha256": str, "phash": str, "miniature": bytes,
    "depth": int, "height": int, "width": int, "channels": int, "dtype": str,
    "mask_depth": int, "mask_height": int, "mask_width": int,
    "spacing": list[float], "mask_spacing": list[float], "orientation": str, "mask_orientation": str, "mask_offset": float,
    "mean": list[float], "std": list[float], "low": list[float], "high": list[float], "sharpness": float,
    "class_pixels": list[int], "ignored_pixels": int, "unknown_values": str, "smallest_component": int,
    "n_instances": int, "instance_areas": list[int],
    "group": str, "split": str, "split_given": bool, "fold": int, "notes": list[str], "error": str,
}
"""The columns of a manifest (`segpipe.data.manifest.build` tells what they mean)."""


HASHES = {"path": "sha256", "mask_path": "mask_sha256", "instances_path": "instances_sha256"}
"""The columns of files, and those of their hashes."""


def describe_item(item: Item, root: Path, classes: ClassTable, limits: DataParams) -> Row:
    """All columns of one item; `split` is None where it is not given."""
    row = describe_paths(item, root)
    readers: dict[str, tuple[Decoder, Callable[[np.ndarray, Geometry | None], Row]]] = {
        "path": (decode_image_with_notes, _describe_image),
        "mask_path": (decode_mask_with_notes, partial(_describe_mask, classes)),
        "instances_path": (decode_mask_with_notes, _describe_instances),
    }
    geometries: dict[str, Geometry | None] = {}
    for column, (decode, describe) in readers.items():
        if row[column] is None:
            continue
        try:
            array, geometries[column] = _load(row, column, root, limits, decode)
            row |= describe(array, geometries[column])
            del array
        except DataError as error:  # a stage's out must not name a machine's folders
            told = DataError(error.what, where=row[column], found=error.found, expected=error.expected, fix=error.fix)
            row["error"] = row["error"] or str(told)
    if row["error"] is None and row["n_instances"] is not None:
        row["error"] = _instances_misfit(row)
    row.pop("instances_size", None)
    of_image, of_mask = geometries.get("path"), geometries.get("mask_path")
    size, mask_size = ([row[f"{kind}{edge}"] for edge in ("depth", "height", "width")] for kind in ("", "mask_"))
    if of_image and of_mask and size == mask_size:
        row["mask_offset"] = of_image.offset(of_mask, tuple(size))
    return row


def _load(row: Row, column: str, root: Path, limits: DataParams, decode: Decoder) -> tuple[np.ndarray, Geometry | None]:
    """Read a file, enter its hash and its notes, and let go of its bytes before anything is measured."""
    content = read_bytes(root / row[column], max_bytes(limits))
    row[HASHES[column]] = sha256_bytes(content)
    array, notes = decode(content, row[column], limits)
    kind = column.removesuffix("path").removesuffix("_")
    row["notes"] = [*(row["notes"] or []), *(f"{kind}: {note}" if kind else note for note in notes)]
    return array, decode_geometry(content, row[column])


def describe_paths(item: Item, root: Path) -> Row:
    """A row of which only that is filled in that is known without opening a file."""
    return dict.fromkeys(COLUMNS) | {
        "key": item.key, "group": item.group, "split": item.split, "split_given": item.split is not None,
        "path": _relative(item.image, root), "mask_path": _relative(item.mask, root),
        "instances_path": _relative(item.instances, root),
    }


def _describe_image(image: np.ndarray, geometry: Geometry | None) -> Row:
    rows, channels = flat_rows(image), image.shape[-1]
    mean, std, low, high = moments(rows).tolist()
    plane = reduce_to_grey(image)
    return {
        "phash": perceptual_hash(plane), "miniature": miniature(plane), "depth": image.shape[0] if image.ndim == 4 else None,
        "height": image.shape[-3], "width": image.shape[-2], "channels": channels, "dtype": image.dtype.name,
        "spacing": list(geometry.spacing) if geometry else None, "orientation": geometry.orientation if geometry else None,
        "mean": mean, "std": std, "low": low, "high": high, "sharpness": sharpness(image),
    }


def _describe_mask(classes: ClassTable, mask: np.ndarray, geometry: Geometry | None) -> Row:
    runs = find_runs(mask)
    counts = runs.pixels() if runs else histogram(flat_rows(mask, labels=True))
    present = np.flatnonzero(counts)
    pixels, labels = counts[present], classes.encode(present.astype(np.uint16))
    unknown = labels == UNKNOWN
    regions = _regions(classes, mask, runs) if runs else None
    return {
        "mask_depth": mask.shape[0] if mask.ndim == 3 else None,
        "mask_height": mask.shape[-2], "mask_width": mask.shape[-1],
        "mask_spacing": list(geometry.spacing) if geometry else None,
        "mask_orientation": geometry.orientation if geometry else None,
        "class_pixels": (pixels @ classes.labelling.members[labels]).tolist(),
        "ignored_pixels": int(pixels[labels == IGNORE].sum()),
        "unknown_values": json.dumps(dict(zip(present[unknown].tolist(), pixels[unknown].tolist(), strict=True))),
        "smallest_component": int(regions.min()) if regions is not None and len(regions) else None,
    }


def _regions(classes: ClassTable, mask: np.ndarray, runs: Runs) -> np.ndarray | None:
    """The sizes of the connected regions of all classes but the background; None where one has far too many."""
    if not classes.overlapping:
        objects = [spec.value for spec in classes.classes[1 if is_background(classes.names[0]) else 0 :]]
        return component_sizes(runs.of(objects))[1]
    sizes, labels = [np.empty(0, np.int64)], classes.encode(mask)
    for index in range(1, len(classes)):
        own = find_runs(classes.labelling.where(labels, index).astype(np.uint8))
        if own is None:
            return None
        sizes.append(component_sizes(own.of([1]))[1])
    return np.concatenate(sizes)


def _describe_instances(ids: np.ndarray, _: Geometry | None) -> Row:
    areas = histogram(flat_rows(ids, labels=True))[1:]
    areas = areas[areas > 0]
    return {"n_instances": len(areas), "instance_areas": areas.tolist(), "instances_size": ids.shape}


def _instances_misfit(row: Row) -> str | None:
    found = row["instances_size"]
    expected = tuple(row[name] for name in ("depth", "height", "width") if row[name] is not None)
    if found == expected:
        return None
    return str(DataError(
        "not the size of its image", where=row["instances_path"], found=" x ".join(map(str, reversed(found))),
        expected=" x ".join(map(str, reversed(expected))), fix="export image and instances at the same size",
    ))


def describe_orphan(mask: Path, root: Path) -> Row:
    """The row of a mask that has no image."""
    where = _relative(mask, root)
    told = DataError("a mask without an image", where=where, fix="put the image into images/, or remove the mask")
    return dict.fromkeys(COLUMNS) | {
        "key": stem_of(mask), "path": where, "split_given": False, "split": "train", "error": str(told)
    }


def _relative(path: Path | None, root: Path) -> str | None:
    return None if path is None else path.relative_to(root).as_posix()

"""The canonical layout of `data/`: what import and demo write and everything else reads.

```
data/images/<key>.<ext>     data/masks/<key>.png     data/instances/<key>.png (object ids; optional); of volumes .nii.gz each
data/dataset.yaml           classes: [{name, value, color: [r, g, b]}, ...], ignore: [values], overlapping: true where it is so
data/samples.csv            key, group, split (train, val, test or empty); optional, as are its rows; further columns are for people
```
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from pydantic import ValidationError

from segpipe.concurrency import map_ahead
from segpipe.config import DataParams
from segpipe.data.images import decode_geometry, decode_image, image_files, max_bytes, read_mask, stem_of
from segpipe.data.splits import SPLITS
from segpipe.errors import DataError, MissingError
from segpipe.files import read_bytes
from segpipe.json_models import validation_error
from segpipe.samples import IGNORE, UNKNOWN, ClassTable, Sample

CLASSES_FILE = "dataset.yaml"
SAMPLES_FILE = "samples.csv"
_MAX_TABLE_BYTES = 1 << 28
_AHEAD_BYTES = 1 << 29


@dataclass(frozen=True)
class Item:
    """One image of a dataset: where its files lie, and what samples.csv says of it."""

    key: str
    image: Path
    mask: Path | None = None
    instances: Path | None = None
    group: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Dataset:
    """A `data/` folder: its class table and its items, in key order. `orphans` are mask files without an image."""

    root: Path
    classes: ClassTable
    items: list[Item]
    orphans: list[Path]


def load_dataset(data_dir: Path) -> Dataset:
    """What stands in `data/`, from names and tables alone: no image is opened. Raises MissingError or DataError with the fix."""
    if not (data_dir / "images").is_dir():
        raise MissingError(
            "no images here", where=data_dir / "images", fix="`segpipe data import SRC` or `segpipe data demo` fills it"
        )
    images = _by_key(data_dir / "images")
    if not images:
        raise DataError(
            "no image files here",
            where=data_dir / "images",
            fix="`segpipe data import SRC` or `segpipe data demo` fills it",
        )
    masks, instances = _by_key(data_dir / "masks"), _by_key(data_dir / "instances")
    rows = read_samples(data_dir / SAMPLES_FILE, images)
    classes = read_classes(data_dir / CLASSES_FILE)
    if classes.overlapping and instances:
        raise DataError(
            "objects in a dataset whose classes overlap, where there is no one object a pixel",
            where=data_dir / "instances",
            fix="remove the folder, or the overlap (a class a pixel, without `overlapping` in dataset.yaml)",
        )
    items = [
        Item(key, images[key], masks.get(key), instances.get(key), *rows.get(key, (None, None)))
        for key in sorted(images)
    ]
    return Dataset(data_dir, classes, items, [masks[k] for k in sorted(masks.keys() - images.keys())])


def _by_key(folder: Path) -> dict[str, Path]:
    """The image files right in a folder by the name that pairs them; DataError where two have the same."""
    found: dict[str, Path] = {}
    for path in image_files(folder):
        key = stem_of(path)
        if key in found:
            raise DataError(
                "two images share a key",
                where=folder,
                found=f"{found[key].name} and {path.name}",
                expected="names that differ before the dot",
                fix="rename one of them",
            )
        found[key] = path
    return found


def load_sample(item: Item, classes: ClassTable, limits: DataParams) -> Sample:
    """Decode one item. Raises DataError where a file cannot be read or the sizes differ.

    Pixels of a value that the class table does not know become `IGNORE`: validation has judged them before.
    """
    content = read_bytes(item.image, max_bytes(limits))
    image, geometry = decode_image(content, str(item.image), limits), decode_geometry(content, str(item.image))
    del content
    labels = classes.encode(read_mask(item.mask, limits)) if item.mask else None
    instances = read_mask(item.instances, limits).astype(np.uint16) if item.instances else None
    for path, plane in ((item.mask, labels), (item.instances, instances)):
        if plane is not None and plane.shape != image.shape[:-1]:
            raise DataError(
                "not the size of its image",
                where=path,
                found=_words(plane.shape),
                expected=_words(image.shape[:-1]),
                fix="export image and mask at the same size",
            )
    if labels is not None:
        labels[labels == UNKNOWN] = IGNORE
    spacing = geometry.spacing if geometry is not None else None
    return Sample(item.key, image, labels, instances, item.group, spacing)


def _words(shape: tuple[int, ...]) -> str:
    """A size as people say it: width x height (x depth)."""
    return " x ".join(map(str, reversed(shape)))


def load_samples(
    items: list[Item], classes: ClassTable, limits: DataParams, jobs: int | None = None
) -> Iterator[Sample]:
    """`load_sample` of each item, in order, decoded ahead by threads (decoders let go of the interpreter's lock).

    At most two samples a thread are held at a time, and of large images fewer: together about `_AHEAD_BYTES`, one at least.
    """
    jobs = jobs or os.cpu_count() or 1
    largest = _AHEAD_BYTES

    def limit() -> int:
        return min(2 * jobs, max(1, _AHEAD_BYTES // largest))

    for _, future in map_ahead(lambda item: load_sample(item, classes, limits), items, jobs, limit):
        sample = future.result()
        del future
        size = sample.image.nbytes
        largest = size if largest == _AHEAD_BYTES else max(largest, size)
        yield sample
        del sample


def read_classes(path: Path) -> ClassTable:
    """The class table of a dataset.yaml."""
    if not path.exists():
        raise MissingError(
            "the class table is missing",
            where=path,
            expected="classes: [{name, value, color: [r, g, b]}, ...], ignore: [values]",
            fix="write it, or let `segpipe data import` do so",
        )
    try:
        content = yaml.safe_load(read_bytes(path, 1 << 20))
        return ClassTable.model_validate(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"is not valid YAML: {error}", where=path) from error
    except ValidationError as error:
        first = validation_error(error, path, ClassTable)
        raise DataError(first.what, where=path, found=first.found, expected=first.expected, fix=first.fix) from error


def format_classes(classes: ClassTable) -> str:
    """The text of a dataset.yaml."""
    lines = ["classes:"]
    for spec in classes.classes:
        name = yaml.safe_dump(spec.name, default_style='"', allow_unicode=True).strip()
        lines.append(f"  - {{name: {name}, value: {spec.value}, color: [{', '.join(map(str, spec.color))}]}}")
    lines.append(f"ignore: [{', '.join(map(str, classes.ignore))}]")
    lines += ["overlapping: true"] if classes.overlapping else []
    return "\n".join(lines) + "\n"


def format_samples(rows: list[dict[str, str]]) -> str:
    """The text of a samples.csv: one row an image, columns as in the first row."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def read_samples(path: Path, keys: Collection[str]) -> dict[str, tuple[str | None, str | None]]:
    """samples.csv as {key: (group, split)}; DataError for a row that does not fit."""
    if not path.exists():
        return {}
    try:
        text = read_bytes(path, _MAX_TABLE_BYTES).decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"is not a CSV table in UTF-8: {error}", where=path) from error
    table: dict[str, tuple[str | None, str | None]] = {}
    for line, row in enumerate(rows, start=2):
        where, key, split = f"{path}:{line}", row.get("key"), row.get("split") or None
        if not key:
            raise DataError("a row without a key", where=where, expected="columns key, group, split")
        if key in table:
            raise DataError("a second row for one image", where=where, found=key, fix="keep one of the rows")
        if key not in keys:
            raise DataError(
                "a row without an image",
                where=where,
                found=key,
                expected=f"the name of a file in {path.parent / 'images'}",
            )
        if split and split not in SPLITS:
            raise DataError("no such split", where=where, found=split, expected=", ".join(SPLITS) + " or nothing")
        table[key] = (row.get("group") or None, split)
    return table

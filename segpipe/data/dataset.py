"""The canonical layout of `data/`, which import and demo write and everything else reads.

```
data/images/<key>.<ext>      the images; volumes are .nii.gz
data/masks/<key>.png         the mask of each image (.nii.gz for volumes); missing for an image without labels
data/instances/<key>.png     maps of instance ids (.nii.gz for volumes); optional
data/dataset.yaml            classes: [{name, value, color: [r, g, b]}, ...], ignore: [values], and overlapping: true if classes overlap
data/samples.csv             columns key, group, split (train, val, test or empty); the file and each row are optional; further
                             columns are metadata
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
from segpipe.data.images import (
    decode_geometry,
    decode_image_and_nodata,
    image_files,
    max_bytes,
    read_aligned_mask,
    stem_of,
)
from segpipe.data.splits import SPLITS
from segpipe.data.yaml_document import read_yaml
from segpipe.errors import DataError, MissingError
from segpipe.files import read_bytes
from segpipe.json_models import validation_error
from segpipe.samples import IGNORE, UNKNOWN, ClassTable, Sample

CLASSES_FILE = "dataset.yaml"
SAMPLES_FILE = "samples.csv"
_MAX_CLASSES_BYTES = 1 << 20
_MAX_TABLE_BYTES = 1 << 28
_AHEAD_BYTES = 1 << 29
"""The approximate total size of the decoded images that `load_samples` holds at once."""


@dataclass(frozen=True)
class Item:
    """One image of a dataset: its files, and its row of samples.csv.

    Attributes:
        key: the file name of the image without its ending.
        image: the image file.
        mask: the mask file; None for an image without labels.
        instances: the file with instance ids; None without instances.
        group: the group of the image; None without a group.
        split: train, val or test if samples.csv gives it, else None.
    """

    key: str
    image: Path
    mask: Path | None = None
    instances: Path | None = None
    group: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Dataset:
    """The content of a `data/` folder.

    Attributes:
        root: the folder.
        classes: its class table.
        items: its images, in the order of their keys.
        orphans: mask files without an image.
    """

    root: Path
    classes: ClassTable
    items: list[Item]
    orphans: list[Path]


def load_dataset(data_dir: Path) -> Dataset:
    """List the images of `data/` from file names and tables. No image is opened.

    Args:
        data_dir: the folder in the canonical layout.

    Raises:
        MissingError: if there is no images/ folder or no class table.
        DataError: if there are no images, if two files have the same key, or if a table is invalid.
    """
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
            "a dataset with overlapping classes cannot have instances, because a pixel may belong to several",
            where=data_dir / "instances",
            fix="remove the folder, or use exclusive classes (no `overlapping` in dataset.yaml)",
        )
    items = [
        Item(key, images[key], masks.get(key), instances.get(key), *rows.get(key, (None, None)))
        for key in sorted(images)
    ]
    return Dataset(data_dir, classes, items, [masks[k] for k in sorted(masks.keys() - images.keys())])


def _by_key(folder: Path) -> dict[str, Path]:
    """Return the image files of a folder by their keys. Raises DataError if two files have the same key."""
    paths: dict[str, Path] = {}
    for path in image_files(folder):
        key = stem_of(path)
        if key in paths:
            raise DataError(
                "two images share a key",
                where=folder,
                found=f"{paths[key].name} and {path.name}",
                expected="names that differ before the dot",
                fix="rename one of them",
            )
        paths[key] = path
    return paths


def load_sample(item: Item, classes: ClassTable, limits: DataParams) -> Sample:
    """Decode the image, the mask and the instances of one item.

    Pixels with a value that is not in the class table become `IGNORE`; validation has reported them before. So do those without data
    (GeoTIFF).

    Args:
        item: the image.
        classes: the class table of the dataset.
        limits: how large files may be, and how pages of TIFF files are read.

    Returns:
        The sample; its arrays are documented in `segpipe.samples.Sample`.

    Raises:
        DataError: if a file cannot be read, or if the sizes of image and mask differ.
    """
    content = read_bytes(item.image, max_bytes(limits))
    image, _, missing = decode_image_and_nodata(content, str(item.image), limits)
    geometry = decode_geometry(content, str(item.image))
    del content
    labels = classes.encode(read_aligned_mask(item.mask, item.image, limits)) if item.mask else None
    instances = read_aligned_mask(item.instances, item.image, limits).astype(np.uint16) if item.instances else None
    for path, array in ((item.mask, labels), (item.instances, instances)):
        if array is not None and array.shape != image.shape[:-1]:
            raise DataError(
                "not the size of its image",
                where=path,
                found=_size_text(array.shape),
                expected=_size_text(image.shape[:-1]),
                fix="export image and mask at the same size",
            )
    if labels is not None:
        labels[labels == UNKNOWN] = IGNORE
        if missing is not None:
            labels[missing] = IGNORE
    spacing = geometry.spacing if geometry is not None else None
    return Sample(item.key, image, labels, instances, item.group, spacing)


def _size_text(shape: tuple[int, ...]) -> str:
    """Format a size as width x height (x depth)."""
    return " x ".join(map(str, reversed(shape)))


def load_samples(
    items: list[Item], classes: ClassTable, limits: DataParams, jobs: int | None = None
) -> Iterator[Sample]:
    """Decode items in threads, ahead of their use. Decoders release the interpreter lock.

    At most two samples per thread are in memory at once, and fewer if images are large: about 512 MiB of images in total, but at
    least one image.

    Args:
        items: the images.
        classes: the class table of the dataset.
        limits: how large files may be, and how pages of TIFF files are read.
        jobs: the number of threads, by default one per core.

    Yields:
        The sample of each item, in the order of `items`.

    Raises:
        DataError: as `load_sample` does, after the samples of all items before the one that failed.
    """
    jobs = jobs or os.cpu_count() or 1
    largest_bytes = _AHEAD_BYTES

    def limit() -> int:
        return min(2 * jobs, max(1, _AHEAD_BYTES // largest_bytes))

    for _, future in map_ahead(lambda item: load_sample(item, classes, limits), items, jobs, limit):
        sample = future.result()
        del future
        size = sample.image.nbytes
        largest_bytes = size if largest_bytes == _AHEAD_BYTES else max(largest_bytes, size)
        yield sample
        del sample


def read_classes(path: Path) -> ClassTable:
    """Read the class table of a dataset.yaml.

    Raises:
        MissingError: if there is no such file.
        DataError: if it is not a valid class table.
    """
    if not path.exists():
        raise MissingError(
            "the class table is missing",
            where=path,
            expected="classes: [{name, value, color: [r, g, b]}, ...], ignore: [values]",
            fix="write it, or import the data with `segpipe data import`, which writes it",
        )
    try:
        return ClassTable.model_validate(read_yaml(path, _MAX_CLASSES_BYTES))
    except ValidationError as error:
        first = validation_error(error, path, ClassTable)
        raise DataError(first.what, where=path, found=first.found, expected=first.expected, fix=first.fix) from error


def format_classes(classes: ClassTable) -> str:
    """Return the text of a dataset.yaml."""
    lines = ["classes:"]
    for spec in classes.classes:
        name = yaml.safe_dump(spec.name, default_style='"', allow_unicode=True).strip()
        lines.append(f"  - {{name: {name}, value: {spec.value}, color: [{', '.join(map(str, spec.color))}]}}")
    lines.append(f"ignore: [{', '.join(map(str, classes.ignore))}]")
    lines += ["overlapping: true"] if classes.overlapping else []
    return "\n".join(lines) + "\n"


def format_samples(rows: list[dict[str, str]]) -> str:
    """Return the text of a samples.csv: one line per row, with the columns of the first row."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def read_samples(path: Path, keys: Collection[str]) -> dict[str, tuple[str | None, str | None]]:
    """Read the groups and splits of a samples.csv.

    Args:
        path: the table; it may be missing.
        keys: the keys of the images.

    Returns:
        For each key in the table its group and its split, None if empty.

    Raises:
        DataError: if the table is not a CSV file in UTF-8, if a row has no key, an unknown key or an unknown split, or if two rows
            have the same key.
    """
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

"""The manifest: one row an image with all that later stages need to know without opening it again, and its summary, the fingerprint.

| column | |
|---|---|
| key, group, split, split_given | who it is and where it belongs; `split_given`: samples.csv said so |
| path, mask_path, instances_path | relative to data/ |
| sha256, mask_sha256, instances_sha256 | of the files' bytes |
| phash | perceptual hash (DCT) of the image or of a volume's middle slice, 16 hexadecimal digits |
| depth, height, width, channels, dtype, mask_depth, mask_height, mask_width | sizes in pixels; no depth for an image (2D) |
| spacing, mask_spacing | size of a voxel in mm, (D, H, W); only where the file tells it |
| orientation, mask_orientation | axis codes of the file's affine, "RAS" for one; only where the file tells it |
| mean, std, low, high | a list each, by channel, of stored values of all pixels; low and high are the 0.5th and 99.5th percentile |
| sharpness | variance of the Laplacian of the grey image, whose own window is scaled to 0..1 (`measure.sharpness`) |
| class_pixels, ignored_pixels | pixels by class id, and of ignored values |
| unknown_values | JSON {value: pixels} of what the class table does not know |
| smallest_component | pixels of the smallest connected region of any class but the background (8 neighbours, in a volume 26); \
none where there is no region, or far too many (`regions.MAX_RUNS`) |
| n_instances, instance_areas | objects, and the pixels of each in the order of their ids, where the dataset has them |
| notes | what reading changed: "EXIF rotation applied", "alpha dropped" |
| error | why the row could not be filled; None for a good one |
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from segpipe.config import DataParams, SplitParams, config_error
from segpipe.data.dataset import Dataset, Item
from segpipe.data.describe import COLUMNS, Row, describe_item, describe_orphan
from segpipe.data.splits import SPLITS, assign_split
from segpipe.errors import DataError
from segpipe.files import atomic_path, read_json, sha256_bytes, write_text
from segpipe.progress import track
from segpipe.samples import ClassTable

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_ALONE_S = 1.0
"""Seconds for which one process works alone before others are started: they take about that long to be of use."""


def build_manifest(dataset: Dataset, limits: DataParams, split: SplitParams, jobs: int | None = None) -> pd.DataFrame:
    """Decode every file once and describe it, in key order. A bad file is a row with `error`; nothing is raised for it.

    A row's split is the given one, else by hash of its group, else by hash of its image file. `jobs` processes (one a core)
    share the work where it takes longer than a second; each holds one image at a time.
    """
    describe = partial(describe_item, root=dataset.root, classes=dataset.classes, limits=limits)
    rows = list(
        track(_spread(describe, dataset.items, jobs or os.cpu_count() or 1), "reading images", len(dataset.items))
    )
    for row in rows:
        row["split"] = row["split"] or assign_split(row["group"] or row["sha256"] or row["key"], split)
    rows += [describe_orphan(path, dataset.root) for path in dataset.orphans]
    return _to_frame(_to_table(sorted(rows, key=lambda row: (row["key"], row["path"]))))


def write_manifest(frame: pd.DataFrame, path: Path) -> None:
    """Write a manifest as Parquet, atomically; the same rows give the same bytes."""
    import pyarrow.parquet as pq

    with atomic_path(path) as temporary:
        pq.write_table(_to_table(_records(frame)), temporary, compression="zstd")


def read_manifest(path: Path) -> pd.DataFrame:
    """A manifest that `write_manifest` wrote."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"is no manifest: {error}", where=path, fix="`dvc repro ingest` writes it anew") from error
    if table.schema.names != _schema().names:
        raise DataError(
            "is a manifest of another version",
            where=path,
            fix="`dvc repro --force --single-item ingest` writes it anew",
        )
    return _to_frame(table)


def usable(frame: pd.DataFrame) -> pd.Series:
    """True for rows that can be trained on: readable, with a mask of the image's size."""
    sizes = (frame["height"] == frame["mask_height"]) & (frame["width"] == frame["mask_width"])
    depths = (frame["depth"].fillna(0) == frame["mask_depth"].fillna(0)).fillna(False)
    return (frame["error"].isna() & frame["mask_path"].notna() & sizes.fillna(False) & depths).astype(bool)


class Range(BaseModel):
    """Smallest, middle and largest of some sizes, in pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    min: int
    median: int
    max: int


class Fingerprint(BaseModel):
    """A dataset in numbers, over the rows that can be trained on.

    Intensities (by channel, of stored values) come from the training split; all rows stand in where that is empty.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    data_hash: str
    """SHA-256 over keys, file hashes, groups, splits and the class table."""
    classes: ClassTable
    n_images: dict[str, int]
    """By split."""
    channels: int
    dtype: str
    height: Range
    width: Range
    depth: Range | None = None
    """Of volumes; None for images."""
    spacing: list[float] | None = None
    """Median size of a voxel in mm, by axis; None where the files tell none."""
    task: Literal["semantic", "instance", "volume"] = "semantic"
    """What the data calls for: volume where it is 3D, instance where all images have objects, semantic else."""
    class_pixels: dict[str, list[int]]
    """By split, by class id."""
    ignored_pixels: dict[str, int]
    """By split."""
    low: list[float]
    """Median over images of their 0.5th percentile."""
    high: list[float]
    """Median over images of their 99.5th percentile; above `low` by one standard deviation at least, by 1 where that is 0."""
    mean: list[float]
    """Over all pixels."""
    std: list[float]
    """Over all pixels."""
    groups: int
    instances: bool

    def write(self, path: Path) -> None:
        """Write as JSON, atomically."""
        write_text(path, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> Fingerprint:
        """Read and check what `write` wrote."""
        try:
            return cls.model_validate(read_json(path))
        except ValidationError as error:
            raise config_error(error, path, cls) from error


def make_fingerprint(manifest: pd.DataFrame, classes: ClassTable) -> Fingerprint:
    """Sum a manifest up. Raises DataError where no row can be trained on."""
    rows = manifest[usable(manifest)]
    if rows.empty:
        first = manifest["error"].dropna()
        raise DataError(
            "no image can be trained on", found=first.iloc[0] if len(first) else "images without masks of their size",
            expected="readable images with masks", fix="repair the files, or import the dataset anew",
        )  # fmt: skip
    channels, dtype = int(rows["channels"].mode().iloc[0]), str(rows["dtype"].mode().iloc[0])
    alike = rows[(rows["channels"] == channels) & (rows["dtype"] == dtype)]
    train = alike[alike["split"] == "train"]
    mean, std, low, high = intensities(train if len(train) else alike)
    by_split = {split: rows[rows["split"] == split] for split in SPLITS}
    instances, volumes = bool(rows["n_instances"].notna().all()), rows["depth"].notna()
    return Fingerprint(
        data_hash=_data_hash(manifest, classes),
        classes=classes,
        n_images={split: len(part) for split, part in by_split.items()},
        channels=channels,
        dtype=dtype,
        height=_range(rows["height"]),
        width=_range(rows["width"]),
        depth=_range(rows.loc[volumes, "depth"]) if volumes.any() else None,
        spacing=_median_spacing(rows["spacing"].dropna().to_list()),
        task="volume" if volumes.mean() > 0.5 else "instance" if instances else "semantic",
        class_pixels={split: _sum_pixels(part, len(classes)) for split, part in by_split.items()},
        ignored_pixels={split: int(part["ignored_pixels"].sum()) for split, part in by_split.items()},
        low=low,
        high=high,
        mean=mean,
        std=std,
        groups=rows["group"].nunique(),
        instances=instances,
    )


def intensities(rows: pd.DataFrame) -> tuple[list[float], list[float], list[float], list[float]]:
    """Mean, std, low, high by channel over rows of a manifest with the same channels.

    Mean and std are those of all pixels pooled, exactly: images are weighted by their pixels, and the spread between their means
    is added to the spread within (law of total variance).
    """
    pixels = (rows["depth"].fillna(1) * rows["height"] * rows["width"]).to_numpy(np.float64)[:, None]
    means, stds, lows, highs = (np.stack(rows[name].to_list()) for name in ("mean", "std", "low", "high"))
    mean = (pixels * means).sum(0) / pixels.sum()
    std = np.sqrt((pixels * (stds**2 + (means - mean) ** 2)).sum(0) / pixels.sum())
    low, high = np.median(lows, axis=0), np.median(highs, axis=0)
    high = np.maximum(high, low + np.where(std > 0, std, 1.0))
    return mean.tolist(), std.tolist(), low.tolist(), high.tolist()


def _spread(describe: partial[Row], items: list[Item], jobs: int) -> Iterator[Row]:
    """Describe all items in order: alone for a moment, then with other processes if much is left."""
    began = time.monotonic()
    alone = 0
    while alone < len(items) and (jobs == 1 or time.monotonic() - began < _ALONE_S):
        yield describe(items[alone])
        alone += 1
    rest = items[alone:]
    if len(rest) < alone:  # less than another second of work
        yield from map(describe, rest)
        return
    # spawn: a fork of a process that runs threads (torch, Arrow) may hang.
    with ProcessPoolExecutor(min(jobs, len(rest)), mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(describe, rest, chunksize=min(16, max(1, len(rest) // (4 * jobs))))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _schema() -> pa.Schema:
    import pyarrow as pa

    types = {
        str: pa.string(), int: pa.int64(), bool: pa.bool_(),
        float: pa.float64(), list[float]: pa.list_(pa.float64()), list[int]: pa.list_(pa.int64()), list[str]: pa.list_(pa.string()),
    }  # fmt: skip
    return pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])


def _to_table(rows: list[Row]) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist(rows, schema=_schema())


def _to_frame(table: pa.Table) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa

    return table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)


def _records(frame: pd.DataFrame) -> list[Row]:
    import pyarrow as pa

    return pa.Table.from_pandas(frame, schema=_schema(), preserve_index=False).to_pylist()


def _sum_pixels(rows: pd.DataFrame, n_classes: int) -> list[int]:
    counts: list[int] = sum(
        (np.asarray(c, np.int64) for c in rows["class_pixels"]), np.zeros(n_classes, np.int64)
    ).tolist()
    return counts


def _range(sizes: pd.Series) -> Range:
    values = sorted(int(size) for size in sizes)
    return Range(min=values[0], median=statistics.median_low(values), max=values[-1])


def _median_spacing(spacings: list[np.ndarray]) -> list[float] | None:
    usual = [s for s in spacings if len(s) == statistics.mode(len(s) for s in spacings)]
    return np.median(np.stack(usual), axis=0).tolist() if usual else None  # type: ignore[no-any-return]


def _data_hash(manifest: pd.DataFrame, classes: ClassTable) -> str:
    columns = ["key", "sha256", "mask_sha256", "instances_sha256", "group", "split"]
    text = manifest[columns].sort_values("key").to_csv(index=False, lineterminator="\n")
    return sha256_bytes((classes.model_dump_json() + "\n" + text).encode())

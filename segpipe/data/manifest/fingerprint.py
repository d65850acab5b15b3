"""The fingerprint: a dataset in numbers, summed up from its manifest."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from segpipe.data.splits import SPLITS
from segpipe.data.manifest.table import usable
from segpipe.json_models import read_model
from segpipe.errors import DataError
from segpipe.files import read_json, sha256_bytes, write_text
from segpipe.samples import ClassTable

if TYPE_CHECKING:
    import pandas as pd


DEFAULT_PATCH = 192
"""On street scenes of 480 x 360, 440 steps of 192 reach more than 250 of 256 (test IoU 0.502 and 0.482), in the same time."""


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
        return read_model(path, cls)


def make_fingerprint(manifest: pd.DataFrame, classes: ClassTable) -> Fingerprint:
    """Sum a manifest up. Raises DataError where no row can be trained on."""
    rows = manifest[usable(manifest)]
    if rows.empty:
        first = manifest["error"].dropna()
        raise DataError(
            "no image can be trained on", found=first.iloc[0] if len(first) else "images without masks of their size",
            expected="readable images with masks", fix="repair the files, or import the dataset anew",
        )
    channels, dtype = int(rows["channels"].mode().iloc[0]), str(rows["dtype"].mode().iloc[0])
    alike = rows[(rows["channels"] == channels) & (rows["dtype"] == dtype)]
    train = alike[alike["split"] == "train"]
    mean, std, low, high = intensity_statistics(train if len(train) else alike)
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


def choose_patch(fingerprint: Fingerprint) -> int:
    """Edge of the training crop of images: `PATCH`, or less where the typical one is smaller; a multiple of 32."""
    typical = min(fingerprint.height.median, fingerprint.width.median)
    return int(max(64, min(DEFAULT_PATCH, typical // 32 * 32)))


def intensity_statistics(rows: pd.DataFrame) -> tuple[list[float], list[float], list[float], list[float]]:
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

"""The fingerprint: a summary of a dataset, computed from its manifest."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from segpipe.config import Pages
from segpipe.data.images.geometry import CANONICAL
from segpipe.data.manifest.table import usable
from segpipe.data.splits import SPLITS
from segpipe.errors import DataError
from segpipe.files import sha256_bytes, write_text
from segpipe.json_models import read_model
from segpipe.samples import ClassTable

if TYPE_CHECKING:
    import pandas as pd


DEFAULT_PATCH = 192
"""Edge of a training crop in pixels. On street scenes of 480 x 360 pixels, 440 steps with crops of 192 reach a test IoU of 0.502; 250
steps with crops of 256, which take the same time, reach 0.482."""


class Range(BaseModel):
    """The smallest, the median and the largest of some sizes, in pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    min: int
    median: int
    max: int


class Fingerprint(BaseModel):
    """A summary of the usable images of a dataset.

    The intensity statistics have one value per channel, in stored values (before any normalisation). They come from the training
    split, or from all splits if the training split is empty.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    data_hash: str
    """SHA-256 over keys, file hashes, groups, splits and the class table."""
    classes: ClassTable
    n_images: dict[str, int]
    """The number of images, by split."""
    channels: int
    """The number of channels that most images have."""
    dtype: str
    """The type that most images have: uint8, uint16 or float32."""
    height: Range
    width: Range
    depth: Range | None = None
    """Slices of the volumes; None for a dataset without volumes."""
    spacing: list[float] | None = None
    """Median size of a voxel in mm, along (D, H, W); None if no file states it."""
    task: Literal["semantic", "instance", "volume"] = "semantic"
    """volume if most images are 3D; otherwise instance if all images have instances, else semantic."""
    class_pixels: dict[str, list[int]]
    """The number of pixels of each class, by split and class id."""
    ignored_pixels: dict[str, int]
    """The number of ignored pixels, by split."""
    low: list[float]
    """Median over images of their 0.5th percentile."""
    high: list[float]
    """Median over images of their 99.5th percentile; at least one standard deviation above `low`, or 1 if that is 0."""
    mean: list[float]
    """Mean over all pixels."""
    std: list[float]
    """Standard deviation over all pixels."""
    minimum: list[float] | None = None
    """Smallest value of all images. None in a file of an older version, like all further statistics of this kind."""
    maximum: list[float] | None = None
    """Largest value of all images."""
    spread: list[float] | None = None
    """The smallest difference, over images, between the 0.5th and the 99.5th percentile of an image."""
    whole_numbers: bool = True
    """True if all values are whole numbers."""
    channel_names: list[str] | None = None
    """The names of the channels; None unless the files of all images give the same ones."""
    pages: Pages = "refuse"
    """How several pages of a TIFF file are read (`data.pages`)."""
    orientation: str | None = None
    """The order of voxels of decoded volumes, RAS; None if a file does not state its orientation."""
    spacing_min: list[float] | None = None
    """The smallest size of a voxel in mm, along (D, H, W)."""
    spacing_max: list[float] | None = None
    """The largest size of a voxel in mm, along (D, H, W)."""
    groups: int
    """The number of groups."""
    instances: bool
    """True if all images have instances."""

    def write(self, path: Path) -> None:
        """Write the fingerprint as JSON, atomically."""
        write_text(path, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> Fingerprint:
        """Read and check a file that `write` wrote."""
        return read_model(path, cls)


def make_fingerprint(manifest: pd.DataFrame, classes: ClassTable, pages: Pages = "refuse") -> Fingerprint:
    """Summarise the usable rows of a manifest.

    Args:
        manifest: one row per image (`segpipe.data.manifest.columns`).
        classes: the class table of the dataset.
        pages: how several pages of a TIFF file were read.

    Returns:
        The fingerprint. The intensity statistics leave out images whose number of channels or dtype differs from that of most images.

    Raises:
        DataError: if no row is usable.
    """
    rows = manifest[usable(manifest)]
    if rows.empty:
        first = manifest["error"].dropna()
        raise DataError(
            "no image can be used for training",
            found=first.iloc[0] if len(first) else "images without a mask of the same size",
            expected="readable images with masks",
            fix="repair the files, or import the dataset again",
        )
    channels, dtype = int(rows["channels"].mode().iloc[0]), str(rows["dtype"].mode().iloc[0])
    alike = rows[(rows["channels"] == channels) & (rows["dtype"] == dtype)]
    train = alike[alike["split"] == "train"]
    measured = train if len(train) else alike
    mean, std, low, high = intensity_statistics(measured)
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
        pages=pages,
        **_input_statistics(measured),
        groups=rows["group"].nunique(),
        instances=instances,
    )


def choose_patch(fingerprint: Fingerprint) -> int:
    """Choose the edge of training crops from the typical image size.

    Args:
        fingerprint: the summary of the dataset.

    Returns:
        The edge in pixels, a multiple of 32: `DEFAULT_PATCH`, or less if the median image is smaller, but at least 64.
    """
    typical = min(fingerprint.height.median, fingerprint.width.median)
    return int(max(64, min(DEFAULT_PATCH, typical // 32 * 32)))


def intensity_statistics(rows: pd.DataFrame) -> tuple[list[float], list[float], list[float], list[float]]:
    """Compute the intensity statistics of images with the same number of channels.

    Mean and standard deviation are those of all pixels pooled, exactly: images are weighted by their number of pixels, and the
    variance of their means is added to the mean of their variances (law of total variance).

    Args:
        rows: rows of a manifest (`segpipe.data.manifest.columns`).

    Returns:
        Mean, standard deviation, and the medians over images of the 0.5th and the 99.5th percentile: four lists with one value per
        channel, in stored values.
    """
    pixels = (rows["depth"].fillna(1) * rows["height"] * rows["width"]).to_numpy(np.float64)[:, None]
    means, stds, lows, highs = (np.stack(rows[name].to_list()) for name in ("mean", "std", "low", "high"))
    mean = (pixels * means).sum(0) / pixels.sum()
    std = np.sqrt((pixels * (stds**2 + (means - mean) ** 2)).sum(0) / pixels.sum())
    low, high = np.median(lows, axis=0), np.median(highs, axis=0)
    high = np.maximum(high, low + np.where(std > 0, std, 1.0))
    return mean.tolist(), std.tolist(), low.tolist(), high.tolist()


def _input_statistics(rows: pd.DataFrame) -> dict[str, Any]:
    """Return the fields of a fingerprint that say which images are like the training images; none for an older manifest."""
    if "minimum" not in rows or rows["minimum"].isna().any():
        return {}
    minima, maxima, lows, highs = (np.stack(rows[name].to_list()) for name in ("minimum", "maximum", "low", "high"))
    names = {tuple(value) if value is not None else () for value in rows["channel_names"]}
    spacings = [value for value in rows["spacing"] if value is not None and np.ndim(value)]
    known = bool(len(rows) and rows["orientation"].notna().all())
    same_axes = bool(spacings) and len({len(value) for value in spacings}) == 1
    return {
        "minimum": minima.min(0).tolist(),
        "maximum": maxima.max(0).tolist(),
        "spread": (highs - lows).min(0).tolist(),
        "whole_numbers": bool(rows["whole_numbers"].all()),
        "channel_names": list(next(iter(names))) or None if len(names) == 1 else None,
        "orientation": CANONICAL if known else None,
        "spacing_min": np.min(spacings, axis=0).tolist() if same_axes else None,
        "spacing_max": np.max(spacings, axis=0).tolist() if same_axes else None,
    }


def _sum_pixels(rows: pd.DataFrame, n_classes: int) -> list[int]:
    counts: list[int] = sum(
        (np.asarray(c, np.int64) for c in rows["class_pixels"]), np.zeros(n_classes, np.int64)
    ).tolist()
    return counts


def _range(sizes: pd.Series) -> Range:
    values = sorted(int(size) for size in sizes)
    return Range(min=values[0], median=statistics.median_low(values), max=values[-1])


def _median_spacing(spacings: list[np.ndarray]) -> list[float] | None:
    """Return the median voxel size over the files with the most frequent number of axes."""
    if not spacings:
        return None
    axes = statistics.mode(len(spacing) for spacing in spacings)
    return np.median(np.stack([s for s in spacings if len(s) == axes]), axis=0).tolist()


def _data_hash(manifest: pd.DataFrame, classes: ClassTable) -> str:
    columns = ["key", "sha256", "mask_sha256", "instances_sha256", "group", "split"]
    text = manifest[columns].sort_values("key").to_csv(index=False, lineterminator="\n")
    return sha256_bytes((classes.model_dump_json() + "\n" + text).encode())

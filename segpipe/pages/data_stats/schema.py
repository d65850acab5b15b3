"""The numbers behind the page of `segpipe data stats`, as `--json` prints them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from segpipe.data.imports.unused_files import UnusedFiles
from segpipe.pages.data_stats.histograms import Histogram

Severity = Literal["error", "warning", "note"]


class StatsModel(BaseModel):
    """Base of all parts of `DataStats`: immutable, without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Example(StatsModel):
    """One finding of validation."""

    file: str | None
    """Path relative to data/; None if the finding is about the whole dataset."""
    found: str
    expected: str
    fix: str


class Problem(StatsModel):
    """All findings of one check."""

    check: str
    severity: Severity
    count: int
    examples: list[Example]
    """The first five findings."""


class Unusable(StatsModel):
    """An image that cannot be used for training."""

    file: str
    why: str


class ClassBalance(StatsModel):
    """The images and pixels of one class."""

    name: str
    value: int
    """Its pixel value in mask files."""
    color: tuple[int, int, int]
    images: dict[str, int]
    """Images that contain the class, by split."""
    pixels: dict[str, int]
    """Pixels (voxels in volumes), by split."""
    share: dict[str, float]
    """Share of the pixels that are not ignored, by split; 0 if a split has none."""


class SplitSize(StatsModel):
    """The size of one split."""

    name: str
    images: int
    share: float
    """Share of all usable images."""
    groups: int
    given: int
    """Images whose split is set in samples.csv; the split of the others is derived from a hash."""


class Size(StatsModel):
    """The number of images of one size."""

    width: int
    height: int
    depth: int | None
    """Number of slices of a volume; None for an image."""
    images: int


class Channel(StatsModel):
    """The intensities of one channel, as stored, over the images with the most frequent number of channels."""

    name: str
    mean: float
    std: float
    """Mean and standard deviation over all pixels of these images."""
    means: Histogram
    """The mean of each image, by group if there are only a few groups, else by split."""
    windows: list[tuple[float, float, float]]
    """(0.5th percentile, mean, 99.5th percentile) of each image in the order of the means; at most 120, evenly spread."""


class InstanceStats(StatsModel):
    """The instances of a dataset with instance ids."""

    count: int
    areas: Histogram | None
    """Pixels per instance; None if the manifest does not hold them."""
    per_image: Histogram
    """Instances per image."""
    smallest: int | None
    median: float | None
    """Pixels of the smallest and of the median instance."""


class GroupSize(StatsModel):
    """The images of one group, which stay in one split."""

    name: str
    images: int
    splits: dict[str, int]


class Spacing(StatsModel):
    """The number of volumes of one voxel size."""

    mm: list[float]
    """Voxel size in mm, along each axis of the labels."""
    orientation: str | None
    images: int


class Conversion(StatsModel):
    """A conversion that made files usable."""

    note: str
    images: int
    example: str
    """The key of one of these images."""


class DataStats(StatsModel):
    """A dataset in numbers. All fields after `problems` describe the usable images only."""

    data_hash: str | None
    """None if no image is usable."""
    images: int
    """All images."""
    usable: int
    """Images that can be used for training."""
    unusable: list[Unusable]
    """The first 20 of the other images."""
    problems: list[Problem] | None
    """The findings of validation, errors first; None if it has not run."""
    dtypes: dict[str, int]
    """Images by number type."""
    channel_counts: dict[int, int]
    """Images by number of channels."""
    classes: list[ClassBalance]
    ignored: dict[str, int]
    """Ignored pixels by split."""
    splits: list[SplitSize]
    sizes: list[Size]
    """The most frequent first."""
    intensity: list[Channel]
    sharpness: Histogram | None
    """Variance of the Laplacian of the grey image, whose intensity window is scaled to 0..1; blurred images have low values."""
    objects: InstanceStats | None
    regions: Histogram | None
    """Pixels of the smallest connected region of each image, of any class but the first."""
    groups: list[GroupSize]
    """The largest first."""
    spacing: list[Spacing]
    conversions: list[Conversion]
    unused: list[UnusedFiles] = []
    """Files of the source that the import has not used, by kind and reason; the most frequent first."""

"""What is behind the charts of the page about the data: the words of `segpipe data stats --json`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from segpipe.pages.data_stats.histograms import Histogram

Severity = Literal["error", "warning", "note"]


class StatsModel(BaseModel):
    """A part of `DataStats`: immutable, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Example(StatsModel):
    """One thing that validation found."""

    file: str | None
    """Relative to data/; None where the whole dataset is meant."""
    found: str
    expected: str
    fix: str


class Problem(StatsModel):
    """All that one check of validation found."""

    check: str
    severity: Severity
    count: int
    examples: list[Example]
    """The first few."""


class Unusable(StatsModel):
    """A row of the manifest that cannot be trained on."""

    file: str
    why: str


class ClassBalance(StatsModel):
    """How much there is of a class."""

    name: str
    value: int
    """What stands for it in mask files."""
    color: tuple[int, int, int]
    images: dict[str, int]
    """Images that it occurs in, by split."""
    pixels: dict[str, int]
    """By split; voxels in volumes."""
    share: dict[str, float]
    """Of the pixels that are not ignored, by split; 0 where a split has none."""


class SplitSize(StatsModel):
    """How much there is in a split."""

    name: str
    images: int
    share: float
    """Of all images that can be trained on."""
    groups: int
    given: int
    """Images whose split samples.csv gives; the others are dealt out by hash."""


class Size(StatsModel):
    """Images of one size."""

    width: int
    height: int
    depth: int | None
    """Slices of a volume; None for an image."""
    images: int


class Channel(StatsModel):
    """Intensities of a channel, as stored."""

    name: str
    mean: float
    std: float
    """Of all pixels pooled, with `mean`; images of the usual number of channels."""
    means: Histogram
    """The images' own means, by group where there are a few, or else by split."""
    windows: list[tuple[float, float, float]]
    """0.5th percentile, mean, 99.5th percentile of images in the order of their means, at most 120 evenly spread ones."""


class InstanceStats(StatsModel):
    """Objects, in the datasets that number them."""

    count: int
    areas: Histogram | None
    """Pixels of an object; None where the manifest does not know them."""
    per_image: Histogram
    smallest: int | None
    median: float | None


class GroupSize(StatsModel):
    """Images that must stay in one split together."""

    name: str
    images: int
    splits: dict[str, int]


class Spacing(StatsModel):
    """Volumes of one voxel size."""

    mm: list[float]
    """By axis of the labels."""
    orientation: str | None
    images: int


class Conversion(StatsModel):
    """Something that was done to files so that they could be used."""

    note: str
    images: int
    example: str
    """The key of one of them."""


class DataStats(StatsModel):
    """A dataset in numbers: what each chart of the page shows. All but the first lines counts rows that can be trained on."""

    data_hash: str | None
    """None where nothing can be trained on."""
    images: int
    """Rows of the manifest."""
    usable: int
    """Rows that can be trained on."""
    unusable: list[Unusable]
    """The first few of the others."""
    problems: list[Problem] | None
    """What validation found, errors first; None where it has not run."""
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
    """Variance of the Laplacian of the grey image, its window scaled to 0..1; blurred images are at the left end."""
    objects: InstanceStats | None
    regions: Histogram | None
    """By image, pixels of the smallest connected region of a class that is no background."""
    groups: list[GroupSize]
    """The largest first."""
    spacing: list[Spacing]
    conversions: list[Conversion]

"""Suspected label errors: images for which a model that was not trained on them confidently predicts another class than the label.

For an ensemble of cross-validation, each image of train and val is judged by the member that was not trained on it.

The method is that of Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in dataset labels", JAIR 70, 2021, pixel
by pixel:

- The model is *confident* of a class at a pixel if that class is the most probable one, and at least as probable as it is on average at
  pixels with that label (the threshold of the class, which removes the model's bias towards or against it).
- A pixel is doubtful if the model is confident of another class than the label's. Its weight is the margin: the probability of that
  class minus the probability of the label's class.
- Pixels within `BORDER_PIXELS` of a boundary between labels are left out: borders are fuzzy. So are ignored pixels.

Doubtful pixels that touch each other, with the same given and the same suggested class, form a region; its mass is the sum of their
weights. Regions of less mass than `MIN_MASS` are noise. The score of an image is the mass of its other regions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from segpipe.errors import ConfigError, MissingError
from segpipe.gates.selection import Selection
from segpipe.progress import track
from segpipe.samples import Sample
from segpipe.workspace.paths import Paths

if TYPE_CHECKING:
    from segpipe.data.shards import ShardReader
    from segpipe.inference.segmenter import Segmenter

BORDER_PIXELS = 3
"""Distance from a boundary between labels, along either axis or both, within which a disagreement does not count."""

MIN_MASS = 8.0
"""The smallest mass of a region that counts. A pixel with a margin of 1 has a mass of 1."""

_MAX_REGIONS = 8
"""Regions of an image that are listed, by falling mass."""

Probabilities = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]


class Region(BaseModel):
    """Touching pixels of one given class for which the model is confident of another class."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    x: int
    y: int
    width: int
    height: int
    """The bounding box is in pixels of the image."""
    slice: int | None
    """The slice of a volume that contains most of the region; None for an image."""
    pixels: int
    mass: float
    """The sum over its pixels of the probability of the suggested class minus that of the given class."""
    given: str
    suggested: str


class Suspect(BaseModel):
    """An image whose label may be wrong."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    key: str
    split: str
    group: str | None
    score: float
    """The mass of all regions."""
    share: float
    """The share of doubtful pixels among all that count."""
    places: int
    """The number of regions."""
    regions: list[Region]
    """At most eight, by falling mass."""
    fold: int | None = None
    """The fold of the image, whose member judged it; None if the whole model did."""


@dataclass(frozen=True)
class Doubts:
    """The doubts of a model about the labels of one image.

    Attributes:
        suggested: (H, W) or (D, H, W), uint8, the most probable class.
        weights: float32, 0..1, of the same shape; 0 for a pixel that is not doubtful.
        counted: the number of pixels that could have been doubtful.
    """

    suggested: Labels
    weights: npt.NDArray[np.float32]
    counted: int


class Thresholds:
    """The mean probability of each class at the pixels with its label, collected image by image."""

    def __init__(self, n_classes: int) -> None:
        self._sums = np.zeros(n_classes)
        self._counts = np.zeros(n_classes, np.int64)

    def add(self, labels: Labels, probabilities: Probabilities) -> None:
        """Add an image.

        Args:
            labels: (H, W) or (D, H, W), class ids and `IGNORE`.
            probabilities: (n_classes, ...), of the same shape.
        """
        inside = away_from_borders(labels)
        for index, values in enumerate(probabilities):
            labelled = inside & (labels == index)
            self._sums[index] += values[labelled].sum(dtype=np.float64)
            self._counts[index] += int(labelled.sum())

    @property
    def values(self) -> npt.NDArray[np.float64]:
        """The thresholds, (n_classes,); infinite for a class without labelled pixels."""
        return np.where(self._counts > 0, self._sums / np.maximum(self._counts, 1), np.inf)


def away_from_borders(labels: Labels) -> npt.NDArray[np.bool_]:
    """Return the pixels that have the same label as all pixels within `BORDER_PIXELS` along either axis or both.

    Args:
        labels: (H, W) or (D, H, W), uint8.

    Returns:
        bool, of the same shape.
    """
    from scipy.ndimage import maximum_filter, minimum_filter

    size = 2 * BORDER_PIXELS + 1
    same: npt.NDArray[np.bool_] = maximum_filter(labels, size) == minimum_filter(labels, size)
    return same


def find_doubts(labels: Labels, probabilities: Probabilities, thresholds: npt.NDArray[np.float64]) -> Doubts:
    """Compare the labels of one image with the probabilities of a model.

    Args:
        labels: (H, W) or (D, H, W), class ids and `IGNORE`.
        probabilities: (n_classes, ...), of the same shape.
        thresholds: (n_classes,), from `Thresholds.values`.
    """
    n_classes = len(probabilities)
    suggested = probabilities.argmax(0).astype(np.uint8)
    best = np.take_along_axis(probabilities, suggested[None].astype(np.intp), 0)[0]
    given = np.take_along_axis(probabilities, np.minimum(labels, n_classes - 1)[None].astype(np.intp), 0)[0]
    counted = (labels < n_classes) & away_from_borders(labels)
    doubtful = counted & (suggested != labels) & (best >= thresholds[suggested])
    return Doubts(suggested, np.where(doubtful, best - given, 0).astype(np.float32), int(counted.sum()))


def find_regions(labels: Labels, doubts: Doubts, names: Sequence[str]) -> list[Region]:
    """Find the regions of one image. Pixels touch along edges and at corners.

    Args:
        labels: (H, W) or (D, H, W), class ids and `IGNORE`.
        doubts: of the same image.
        names: the names of the classes.

    Returns:
        The regions, by falling mass.
    """
    from scipy import ndimage

    doubtful = doubts.weights > 0
    pairs = labels.astype(np.uint16) * 256 + doubts.suggested
    neighbourhood = np.ones((3,) * labels.ndim, int)
    regions = []
    for pair in np.unique(pairs[doubtful]):
        region_ids, _ = ndimage.label(doubtful & (pairs == pair), neighbourhood)
        for number, box in enumerate(ndimage.find_objects(region_ids), start=1):
            inside = region_ids[box] == number
            *depth, rows, columns = box
            regions.append(
                Region(
                    x=columns.start,
                    y=rows.start,
                    width=columns.stop - columns.start,
                    height=rows.stop - rows.start,
                    slice=depth[0].start + int(inside.sum((1, 2)).argmax()) if depth else None,
                    pixels=int(inside.sum()),
                    mass=round(float(doubts.weights[box][inside].sum(dtype=np.float64)), 3),
                    given=names[pair >> 8],
                    suggested=names[pair & 255],
                )
            )
    return sorted(regions, key=lambda region: (-region.mass, region.y, region.x))


@dataclass(frozen=True)
class SuspectSample:
    """A suspect with its image and the doubts of the model."""

    suspect: Suspect
    sample: Sample
    doubts: Doubts


def find_suspects(segmenter: Segmenter, readers: Sequence[ShardReader]) -> Iterator[SuspectSample]:
    """Find the images with doubtful regions; one image is in memory at a time.

    The images are predicted twice, which is cheaper than keeping their probabilities: once for the thresholds, once to compare.

    Args:
        segmenter: the model. It should not have been trained on these images; an ensemble (`OutOfFold`) judges each image by a member
            that was not.
        readers: the splits.

    Yields:
        The suspects, in the order of the images.
    """
    spec, folds = segmenter.spec, fold_of(segmenter)
    count = sum(map(len, readers))
    thresholds = Thresholds(len(spec.classes))
    for sample in track(_labelled(readers), "confidence of the model", count):
        assert sample.labels is not None, "the others are left out"
        thresholds.add(sample.labels, _probabilities(segmenter, sample))
    splits = chain.from_iterable([reader.split] * len(reader) for reader in readers)
    pairs = zip(splits, chain.from_iterable(readers), strict=True)
    for split, sample in track(pairs, "comparing with the labels", count):
        if sample.labels is None:
            continue
        doubts = find_doubts(sample.labels, _probabilities(segmenter, sample), thresholds.values)
        regions = [r for r in find_regions(sample.labels, doubts, spec.classes.names) if r.mass >= MIN_MASS]
        if regions:
            suspect = Suspect(
                key=sample.key,
                split=split,
                group=sample.group,
                score=round(sum(region.mass for region in regions), 3),
                places=len(regions),
                regions=regions[:_MAX_REGIONS],
                share=round(float((doubts.weights > 0).sum() / doubts.counted), 6),
                fold=folds.get(sample.key),
            )
            yield SuspectSample(suspect, sample, doubts)


def fold_of(segmenter: Segmenter) -> Mapping[str, int]:
    """Return the fold of each image that a member of an ensemble judges, by key; empty for a single model."""
    from segpipe.inference.out_of_fold import OutOfFoldSegmenter

    return segmenter.fold_of if isinstance(segmenter, OutOfFoldSegmenter) else {}


def _labelled(readers: Iterable[ShardReader]) -> Iterator[Sample]:
    return (sample for sample in chain.from_iterable(readers) if sample.labels is not None)


def _probabilities(segmenter: Segmenter, sample: Sample) -> Probabilities:
    probabilities = segmenter.segment(sample, probabilities=True).probabilities
    assert probabilities is not None, "they were requested"
    return probabilities


def choose_candidate(root: Path, name: str | None) -> str:
    """Choose the candidate whose model is used.

    Args:
        root: the workspace.
        name: the candidate that the user named. None: the winner of selection.json, or the only trained candidate.

    Raises:
        MissingError: no candidate is trained, or not this one.
        ConfigError: several candidates are trained, and there is no winner.
    """
    trained = sorted(path.parent.name for path in Paths(root).models.glob("*/segmenter.json"))
    if not trained:
        raise MissingError("no candidate is trained yet", where=Paths(root).models, fix="segpipe run")
    if name is not None:
        if name not in trained:
            raise MissingError(
                "no trained candidate of this name", where=Paths(root).models, found=name, expected=" or ".join(trained)
            )
        return name
    path = Paths(root).selection
    winner = Selection.read(path).winner if path.exists() else None
    if winner in trained:
        return winner
    if len(trained) > 1:
        raise ConfigError(
            "several candidates are trained, and there is no winner yet",
            found=", ".join(trained),
            fix="add --candidate NAME",
        )
    return trained[0]

"""Suspected label errors: images on which a model that never trained on them is sure of something else than their label says.
An ensemble of cross-validation judges every image of train and val: by the member that never trained on it.

After Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in dataset labels", JAIR 70, 2021, pixel by pixel:

- The model is *sure* of a class where it finds that class the most probable, at least as probable as it finds it on average on
  pixels that are labelled so (the class's own threshold, which takes the model's bias towards or against a class out).
- A pixel is in doubt where the model is sure of another class than the label's. Its weight is the normalised margin: the
  probability of that class minus the probability of the label's.
- Pixels within `BAND` of a boundary between labels are left out: borders are fuzzy, and nobody's error. Ignored pixels are, too.

Doubtful pixels of one given and one suggested class that touch each other are a region; its mass is the sum of their weights.
Regions of less mass than `LEAST` are noise. An image's score is the mass of all others together, in pixels of full certainty.
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
"""Pixels from a boundary between labels, along either axis or both, in which a disagreement does not count."""

MIN_MASS = 8.0
"""The smallest mass of a region that counts, in pixels of full certainty."""

_REGIONS = 8
"""Regions of an image that are listed, the largest first."""

Probabilities = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]


class Region(BaseModel):
    """Touching pixels of one given class that the model is sure are of another one."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    x: int
    y: int
    width: int
    height: int
    """The smallest box around it, in pixels of the image."""
    slice: int | None
    """Of a volume, the one that holds most of it."""
    pixels: int
    mass: float
    """Sum over its pixels of how much more probable the suggested class is than the given one."""
    given: str
    suggested: str


class Suspect(BaseModel):
    """An image whose label may be wrong."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    key: str
    split: str
    group: str | None
    score: float
    """Mass of all regions."""
    share: float
    """Doubtful pixels among all that count."""
    places: int
    """How many regions there are."""
    regions: list[Region]
    """The largest first, at most eight."""
    fold: int | None = None
    """Of a model with folds: that of the image, whose member judged; None where all of the model did."""


@dataclass(frozen=True)
class Doubts:
    """What a model says of the labels of one image.

    suggested: (H, W), uint8, the most probable class. weights: (H, W), float32, 0..1, 0 where there is no doubt.
    counted: how many pixels could have been in doubt.
    """

    suggested: Labels
    weights: npt.NDArray[np.float32]
    counted: int


class Thresholds:
    """How probable a model finds each class, on average, on the pixels that are labelled so; grown image by image."""

    def __init__(self, n_classes: int) -> None:
        self._sums = np.zeros(n_classes)
        self._counts = np.zeros(n_classes, np.int64)

    def add(self, labels: Labels, probabilities: Probabilities) -> None:
        """Take in an image: labels (H, W), probabilities (n_classes, H, W)."""
        inside = away_from_borders(labels)
        for index, values in enumerate(probabilities):
            own = inside & (labels == index)
            self._sums[index] += values[own].sum(dtype=np.float64)
            self._counts[index] += int(own.sum())

    @property
    def values(self) -> npt.NDArray[np.float64]:
        """By class id; infinite for a class that no pixel is labelled with, of which nothing is known."""
        return np.where(self._counts > 0, self._sums / np.maximum(self._counts, 1), np.inf)


def away_from_borders(labels: Labels) -> npt.NDArray[np.bool_]:
    """True where all pixels within `BAND` along either axis or both have the same label. labels: (H, W) or (D, H, W)."""
    from scipy.ndimage import maximum_filter, minimum_filter

    size = 2 * BORDER_PIXELS + 1
    same: npt.NDArray[np.bool_] = maximum_filter(labels, size) == minimum_filter(labels, size)
    return same


def find_doubts(labels: Labels, probabilities: Probabilities, thresholds: npt.NDArray[np.float64]) -> Doubts:
    """Compare one image's labels (H, W) with a model's probabilities (n_classes, H, W)."""
    n_classes = len(probabilities)
    suggested = probabilities.argmax(0).astype(np.uint8)
    best = np.take_along_axis(probabilities, suggested[None].astype(np.intp), 0)[0]
    given = np.take_along_axis(probabilities, np.minimum(labels, n_classes - 1)[None].astype(np.intp), 0)[0]
    counted = (labels < n_classes) & away_from_borders(labels)
    doubtful = counted & (suggested != labels) & (best >= thresholds[suggested])
    return Doubts(suggested, np.where(doubtful, best - given, 0).astype(np.float32), int(counted.sum()))


def find_regions(labels: Labels, doubts: Doubts, names: Sequence[str]) -> list[Region]:
    """The regions of one image, the largest mass first. Pixels touch along edges and at corners."""
    from scipy import ndimage

    doubtful = doubts.weights > 0
    pairs = labels.astype(np.uint16) * 256 + doubts.suggested
    touching = np.ones((3,) * labels.ndim, int)
    found = []
    for pair in np.unique(pairs[doubtful]):
        numbered, _ = ndimage.label(doubtful & (pairs == pair), touching)
        for number, box in enumerate(ndimage.find_objects(numbered), start=1):
            mine = numbered[box] == number
            *deep, rows, columns = box
            found.append(
                Region(
                    x=columns.start,
                    y=rows.start,
                    width=columns.stop - columns.start,
                    height=rows.stop - rows.start,
                    slice=deep[0].start + int(mine.sum((1, 2)).argmax()) if deep else None,
                    pixels=int(mine.sum()),
                    mass=round(float(doubts.weights[box][mine].sum(dtype=np.float64)), 3),
                    given=names[pair >> 8],
                    suggested=names[pair & 255],
                )
            )
    return sorted(found, key=lambda region: (-region.mass, region.y, region.x))


@dataclass(frozen=True)
class SuspectSample:
    """A suspect with what there is to see of it."""

    suspect: Suspect
    sample: Sample
    doubts: Doubts


def find_suspects(segmenter: Segmenter, readers: Sequence[ShardReader]) -> Iterator[SuspectSample]:
    """The images with any region of doubt, in their order; one is in memory at a time.

    The images of all readers are segmented twice, which is cheaper than keeping the probabilities: once for the thresholds, once
    to compare. They should be images that the model was not trained on, or whose folds an ensemble knows (`OutOfFold`).
    """
    spec, folds = segmenter.spec, fold_of(segmenter)
    count = sum(map(len, readers))
    thresholds = Thresholds(len(spec.classes))
    for sample in track(_labelled(readers), "how sure the model is", count):
        thresholds.add(sample.labels, _probabilities(segmenter, sample))  # type: ignore[arg-type]
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
                regions=regions[:_REGIONS],
                share=round(float((doubts.weights > 0).sum() / doubts.counted), 6),
                fold=folds.get(sample.key),
            )
            yield SuspectSample(suspect, sample, doubts)


def fold_of(segmenter: Segmenter) -> Mapping[str, int]:
    """The fold of each image, by key, that a member judges for an ensemble; empty for a model of one network."""
    from segpipe.inference.out_of_fold import OutOfFoldSegmenter

    return segmenter.fold_of if isinstance(segmenter, OutOfFoldSegmenter) else {}


def _labelled(readers: Iterable[ShardReader]) -> Iterator[Sample]:
    return (sample for sample in chain.from_iterable(readers) if sample.labels is not None)


def _probabilities(segmenter: Segmenter, sample: Sample) -> Probabilities:
    probabilities = segmenter.segment(sample, probabilities=True).probabilities
    assert probabilities is not None, "they were asked for"
    return probabilities


def choose_candidate(root: Path, asked: str | None) -> str:
    """The candidate whose model is meant: the one asked for, or the winner of selection.json, or the only one there is.

    Raises MissingError where there is no model, ConfigError where several could be meant.
    """
    trained = sorted(path.parent.name for path in (root / "models").glob("*/segmenter.json"))
    if not trained:
        raise MissingError("no model yet", where=root / "models", fix="segpipe run trains them")
    if asked is not None:
        if asked not in trained:
            raise MissingError(
                "no model of this name", where=root / "models", found=asked, expected=" or ".join(trained)
            )
        return asked
    path = Paths(root).selection
    winner = Selection.read(path).winner if path.exists() else None
    if winner in trained:
        return winner
    if len(trained) > 1:
        raise ConfigError(
            "several models, and no winner yet", found=", ".join(trained), fix="name one: --candidate NAME"
        )
    return trained[0]

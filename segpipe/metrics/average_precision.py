"""COCO mask AP: average precision of objects with confidences over ten IoU thresholds.

Images are added one by one; of each only what its predictions match is kept. The definition is COCO's own, so that figures can be held
against published ones (a test holds them to faster-coco-eval's); where it differs from the rest of segpipe is said in docs/metrics.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from segpipe.metrics.counting import Values
from segpipe.metrics.detections import (
    ANY_SIZE,
    COCO_THRESHOLDS,
    Detections,
    PooledDetections,
    average_precision,
    match_detections_by_size,
)
from segpipe.metrics.instances import InstanceMasks, Mask

SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e5**2)}
"""COCO's classes of size: pixels of a true object, both ends included. Predicted ones count by their own size where unmatched."""

_RANGES = (ANY_SIZE, *SIZES.values())
_EVERY = range(len(COCO_THRESHOLDS))


@dataclass(frozen=True)
class AveragePrecision:
    """COCO's summary. NaN where there is no true object to find, which COCO writes as -1.

    ap: the mean over IoU 0.5, 0.55 .. 0.95 and over the classes that have true objects; ap50, ap75: at that IoU alone; by_size:
    `ap` by small, medium, large. recall: the mean over the same thresholds of the share of true objects found.
    ap_of_class, recall_of_class: (n_classes,).
    """

    ap: float
    ap50: float
    ap75: float
    by_size: dict[str, float]
    recall: float
    ap_of_class: Values
    recall_of_class: Values


@dataclass(frozen=True)
class MatchedImage:
    """One image: its detections of any size, then by `SIZES`, each with the numbers of true objects, (n_classes,)."""

    detections: list[Detections]
    true: list[npt.NDArray[np.int64]]


@dataclass
class AveragePrecisionCounter:
    """Collects images for `result`. Every prediction counts: COCO's own 100 an image and class would cut off a field of cells."""

    n_classes: int
    _images: list[MatchedImage] = field(default_factory=list)

    def match(self, truth: InstanceMasks, prediction: InstanceMasks, ignored: Mask | None = None) -> MatchedImage:
        """What an image's predictions match; those mostly on `ignored`, bool as the image is shaped, count neither for nor against
        (COCO's crowd). May run in several threads. Raises ValueError where truth and prediction are not shaped alike."""
        true = [
            np.bincount(truth.classes[(truth.area >= least) & (truth.area <= most)], minlength=self.n_classes)
            for least, most in _RANGES
        ]
        return MatchedImage(match_detections_by_size(truth, prediction, ignored, _RANGES), true)

    def keep(self, image: MatchedImage) -> None:
        """Count an image; in the order of the images, which decides among predictions that are as sure."""
        self._images.append(image)

    def add(self, truth: InstanceMasks, prediction: InstanceMasks, ignored: Mask | None = None) -> None:
        """Match an image and count it."""
        self.keep(self.match(truth, prediction, ignored))

    def result(self) -> AveragePrecision:
        """The scores of all images added so far."""
        pools, *of_sizes = (self._pools(place) for place in range(len(_RANGES)))
        recall = np.array([_recall(pool) for pool in pools])
        return AveragePrecision(
            ap=self._precision(pools),
            ap50=self._precision(pools, [0]),
            ap75=self._precision(pools, [5]),
            by_size={name: self._precision(own) for name, own in zip(SIZES, of_sizes, strict=True)},
            recall=float(np.nanmean(recall)) if not np.isnan(recall).all() else float("nan"),
            ap_of_class=np.array([self._precision([pool]) for pool in pools]),
            recall_of_class=recall,
        )

    def _pools(self, size: int) -> list[PooledDetections]:
        """The detections of all images by class."""
        true = np.array([image.true[size] for image in self._images]).reshape(-1, self.n_classes)
        pool = PooledDetections.of([image.detections[size] for image in self._images], true)
        return [pool.of_class(label) for label in range(self.n_classes)]

    def _precision(self, pools: list[PooledDetections], thresholds: range | list[int] = _EVERY) -> float:
        return float(average_precision(pools, np.ones((1, len(self._images))), thresholds)[0])


def _recall(pool: PooledDetections) -> float:
    """Of one class: the share of true objects that is found, its mean over the thresholds."""
    true = pool.true.sum()
    return float(pool.found.hits.sum(0).mean() / true) if true else float("nan")

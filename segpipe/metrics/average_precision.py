"""COCO mask AP: average precision of instances with confidences over ten IoU thresholds.

Images are added one by one, and only the matches of their predictions are kept. The definition is COCO's own, so that figures can be
compared with published ones (a test compares with faster-coco-eval); docs/metrics.md names its differences from the rest of segpipe.
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
"""COCO's size classes: the area of a true instance in pixels, both ends included. Unmatched predictions count by their own area."""

_RANGES = (ANY_SIZE, *SIZES.values())
_ALL_THRESHOLDS = range(len(COCO_THRESHOLDS))


@dataclass(frozen=True)
class AveragePrecision:
    """COCO's summary; NaN if there is no true instance to find, which COCO writes as -1.

    Attributes:
        ap: the mean over the IoU thresholds 0.5, 0.55 .. 0.95 and over the classes that have true instances.
        ap50: AP at IoU 0.5.
        ap75: AP at IoU 0.75.
        by_size: `ap` of small, medium and large instances.
        recall: the share of true instances that is found, as a mean over the same thresholds and classes.
        ap_of_class: (n_classes,).
        recall_of_class: (n_classes,).
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
    """One image: its detections and its numbers of true instances, (n_classes,), of any size and then by `SIZES`."""

    detections: list[Detections]
    true: list[npt.NDArray[np.int64]]


@dataclass
class AveragePrecisionCounter:
    """Collects images for `result`.

    Every prediction counts: COCO's limit of 100 per image and class would cut off a field of cells.
    """

    n_classes: int
    _images: list[MatchedImage] = field(default_factory=list)

    def match(self, truth: InstanceMasks, prediction: InstanceMasks, ignored: Mask | None = None) -> MatchedImage:
        """Match the predictions of one image; may run in several threads.

        Args:
            truth: the true instances.
            prediction: the predicted instances.
            ignored: bool, shaped as the image. Predictions that lie mostly on these pixels count neither for nor against the model
                (COCO's crowd).

        Raises:
            ValueError: truth and prediction have different shapes.
        """
        true = [
            np.bincount(truth.classes[(truth.area >= smallest) & (truth.area <= largest)], minlength=self.n_classes)
            for smallest, largest in _RANGES
        ]
        return MatchedImage(match_detections_by_size(truth, prediction, ignored, _RANGES), true)

    def keep(self, image: MatchedImage) -> None:
        """Count a matched image. The order of the images decides between equally confident predictions."""
        self._images.append(image)

    def add(self, truth: InstanceMasks, prediction: InstanceMasks, ignored: Mask | None = None) -> None:
        """Match an image and count it; parameters as in `match`."""
        self.keep(self.match(truth, prediction, ignored))

    def result(self) -> AveragePrecision:
        """Compute the scores of all images counted so far."""
        pools, *pools_by_size = (self._pools(size_index) for size_index in range(len(_RANGES)))
        recall = np.array([_recall(pool) for pool in pools])
        return AveragePrecision(
            ap=self._precision(pools),
            ap50=self._precision(pools, [0]),
            ap75=self._precision(pools, [5]),
            by_size={name: self._precision(of_size) for name, of_size in zip(SIZES, pools_by_size, strict=True)},
            recall=float(np.nanmean(recall)) if not np.isnan(recall).all() else float("nan"),
            ap_of_class=np.array([self._precision([pool]) for pool in pools]),
            recall_of_class=recall,
        )

    def _pools(self, size_index: int) -> list[PooledDetections]:
        """Pool the detections of all images by class."""
        true = np.array([image.true[size_index] for image in self._images]).reshape(-1, self.n_classes)
        pool = PooledDetections.from_images([image.detections[size_index] for image in self._images], true)
        return [pool.of_class(class_id) for class_id in range(self.n_classes)]

    def _precision(self, pools: list[PooledDetections], thresholds: range | list[int] = _ALL_THRESHOLDS) -> float:
        return float(average_precision(pools, np.ones((1, len(self._images))), thresholds)[0])


def _recall(pool: PooledDetections) -> float:
    """Compute the share of true instances of one class that is found, as a mean over the thresholds."""
    true = pool.true.sum()
    return float(pool.detections.hits.sum(0).mean() / true) if true else float("nan")

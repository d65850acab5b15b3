"""COCO mask AP, counted by faster-coco-eval: average precision of objects with confidences over ten IoU thresholds.

Images are added one by one; of each only the run-length codes of its objects are kept. The definition is COCO's own, so that
figures can be held against published ones; where it differs from the rest of segpipe is said in docs/metrics.md.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segpipe.metrics.counting import Values
from segpipe.metrics.objects import Mask, Objects

SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e5**2)}
"""COCO's classes of size: pixels of a true object, both ends included. Predicted ones count by their own size where unmatched."""


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


@dataclass
class ApCounter:
    """Collects images for `result`.

    max_detections: the surest predictions of an image and class that count, COCO's 100; more where images hold more objects,
    such as cells, whose recall is otherwise cut off.
    """

    n_classes: int
    max_detections: int = 100
    _images: list[dict[str, int]] = field(default_factory=list)
    _truth: list[dict[str, Any]] = field(default_factory=list)
    _predictions: list[dict[str, Any]] = field(default_factory=list)

    def add(self, truth: Objects, prediction: Objects, ignored: Mask | None = None) -> None:
        """Add an image, 2D. Predictions mostly on `ignored`, (H, W) bool, count neither for nor against (COCO's crowd)."""
        if truth.shape != prediction.shape or len(truth.shape) != 2:
            raise ValueError(f"truth has shape {truth.shape}, prediction {prediction.shape}: two images (H, W) alike")
        image = len(self._images) + 1
        self._images.append({"id": image, "height": truth.shape[0], "width": truth.shape[1]})
        for code, area, label in zip(_codes(truth), truth.area, truth.classes, strict=True):
            self._truth.append(self._annotation(image, code, int(area), int(label), crowd=0))
        if ignored is not None and ignored.any():
            (code,) = _codes(Objects.from_masks(ignored[None]))
            for label in range(self.n_classes):
                self._truth.append(self._annotation(image, code, int(np.count_nonzero(ignored)), label, crowd=1))
        for code, area, label, score in zip(
            _codes(prediction), prediction.area, prediction.classes, prediction.scores, strict=True
        ):
            found = {"image_id": image, "category_id": int(label) + 1, "segmentation": code, "score": float(score)}
            self._predictions.append(found | {"area": int(area), "iscrowd": 0, "id": len(self._predictions) + 1})

    def _annotation(self, image: int, code: dict[str, Any], area: int, label: int, crowd: int) -> dict[str, Any]:
        number = len(self._truth) + 1
        return {
            "id": number, "image_id": image, "category_id": label + 1, "segmentation": code, "area": area, "iscrowd": crowd,
            "bbox": [0, 0, 1, 1],  # not looked at, but asked for
        }  # fmt: skip

    def result(self) -> AveragePrecision:
        """The scores of all images added so far."""
        precision, recall = self._evaluated()
        # (thresholds, 101 recalls, classes, sizes), (thresholds, classes, sizes)
        return AveragePrecision(
            ap=_mean(precision[:, :, :, 0]),
            ap50=_mean(precision[0, :, :, 0]),
            ap75=_mean(precision[5, :, :, 0]),
            by_size={name: _mean(precision[:, :, :, place]) for place, name in enumerate(SIZES, start=1)},
            recall=_mean(recall[:, :, 0]),
            ap_of_class=np.array([_mean(precision[:, :, k, 0]) for k in range(self.n_classes)]),
            recall_of_class=np.array([_mean(recall[:, k, 0]) for k in range(self.n_classes)]),
        )

    def _evaluated(self) -> tuple[Values, Values]:
        if not self._images:
            n = self.n_classes
            return np.full((10, 101, n, 1 + len(SIZES)), -1.0), np.full((10, n, 1 + len(SIZES)), -1.0)
        from faster_coco_eval import COCO, COCOeval_faster

        categories = [{"id": label + 1, "name": str(label)} for label in range(self.n_classes)]
        quiet = logging.getLogger(__name__).debug
        sets = [
            COCO({"images": self._images, "annotations": rows, "categories": categories}, print_function=quiet)
            for rows in (self._truth, self._predictions)
        ]
        counter = COCOeval_faster(
            *sets, iouType="segm", print_function=quiet, ranges={k: list(v) for k, v in SIZES.items()}
        )
        counter.params.maxDets = [self.max_detections]
        counter.evaluate()
        counter.accumulate()
        return counter.eval["precision"][..., 0], counter.eval["recall"][..., 0]


def _codes(objects: Objects) -> list[dict[str, Any]]:
    """COCO's run-length codes of 2D objects, in their order."""
    from faster_coco_eval.core import mask

    if objects.overlapping:
        return [mask.encode(np.asfortranarray(m, np.uint8)) for m in objects.pixels]
    flat = objects.pixels.T.reshape(-1)  # column by column, as COCO counts
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts, ends = np.append(0, edges), np.append(edges, flat.size)
    order = np.argsort(flat[starts], kind="stable")
    runs = np.stack([starts, ends], 1)[order]
    first = np.searchsorted(flat[starts][order], np.arange(1, len(objects) + 2))
    height, width = objects.shape
    found = []
    for place in range(len(objects)):
        bounds = runs[first[place] : first[place + 1]].reshape(-1)
        rest = [flat.size] if bounds[-1] < flat.size else []
        counts = np.diff(np.concatenate([[0], bounds, rest]).astype(np.int64)).tolist()
        found.append(mask.frPyObjects({"counts": counts, "size": [height, width]}, height, width))
    return found


def _mean(values: Values) -> float:
    """COCO's mean: over what is not -1."""
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")

"""COCO mask AP as faster-coco-eval counts it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segpipe.metrics.average_precision import SIZES, AveragePrecision
from segpipe.metrics.instances import InstanceMasks


@dataclass
class CocoCounter:
    """Used as `segpipe.metrics.average_precision.AveragePrecisionCounter` is; here, too, every prediction counts."""

    n_classes: int
    _images: list[dict[str, int]] = field(default_factory=list)
    _truth: list[dict[str, Any]] = field(default_factory=list)
    _predictions: list[dict[str, Any]] = field(default_factory=list)

    def add(self, truth: InstanceMasks, prediction: InstanceMasks, ignored: np.ndarray | None = None) -> None:
        """Add an image, 2D. Predictions mostly on `ignored`, (H, W) bool, count neither for nor against (COCO's crowd)."""
        if truth.shape != prediction.shape or len(truth.shape) != 2:
            raise ValueError(f"truth has shape {truth.shape}, prediction {prediction.shape}: two images (H, W) alike")
        image = len(self._images) + 1
        self._images.append({"id": image, "height": truth.shape[0], "width": truth.shape[1]})
        for code, area, label in zip(_codes(truth), truth.area, truth.classes, strict=True):
            self._truth.append(self._annotation(image, code, int(area), int(label), crowd=0))
        if ignored is not None and ignored.any():
            (code,) = _codes(InstanceMasks.from_masks(ignored[None]))
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
            "id": number,
            "image_id": image,
            "category_id": label + 1,
            "segmentation": code,
            "area": area,
            "iscrowd": crowd,
            "bbox": [0, 0, 1, 1],  # not looked at, but asked for
        }

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

    def _evaluated(self) -> tuple[np.ndarray, np.ndarray]:
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
        counter.params.maxDets = [1 << 16]
        counter.evaluate()
        counter.accumulate()
        return counter.eval["precision"][..., 0], counter.eval["recall"][..., 0]


def _codes(objects: InstanceMasks) -> list[dict[str, Any]]:
    """COCO's run-length codes of 2D objects, in their order."""
    from faster_coco_eval.core import mask

    masks = objects.pixels if objects.overlapping else [objects.pixels == k + 1 for k in range(len(objects))]
    return [mask.encode(np.asfortranarray(m, np.uint8)) for m in masks]


def _mean(values: np.ndarray) -> float:
    """COCO's mean: over what is not -1."""
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")

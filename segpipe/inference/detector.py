"""Run a detector on images of any size and convert its boxes and masks to instances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from segpipe.inference.engines.engine import TorchEngine
from segpipe.inference.postprocess import Postprocess, select_instances
from segpipe.inference.tiling import tile_starts
from segpipe.samples import Instances

if TYPE_CHECKING:
    from segpipe.inference.engines.engine import Batch

DEFAULT_POSTPROCESS = Postprocess(method="detections", min_score=0.5)
"""Used if training has not chosen better settings on the validation split."""
_DUPLICATE_IOU = 0.5
"""Boxes of one class from two tiles whose IoU is larger belong to the same instance."""
_MIN_VISIBLE = 0.5
"""An instance of which less than this share is visible behind others with higher scores is a duplicate of them."""


@dataclass(frozen=True)
class Detections:
    """Detections in an image, by descending score.

    Args:
        boxes: (n, 4), float32: x and y of the first corner, then of the last, in pixels.
        classes: Class ids, (n,), int64.
        scores: (n,), float32, 0..1.
        masks: (n, 28, 28), float32, 0..1, in the frame of the box.
    """

    boxes: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    masks: npt.NDArray[np.float32]

    def select(self, index: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Detections:
        """Return some of the detections, by indices (in their order) or by a boolean mask (n,)."""
        return Detections(self.boxes[index], self.classes[index], self.scores[index], self.masks[index])


class DetectorEngine(TorchEngine):
    """Runs a torch detector (`segpipe.models.detection.mask_rcnn_network`) in evaluation mode."""

    def detect(self, batch: Batch) -> Detections:
        """Detect the instances of a single normalised image, (1, C, H, W)."""
        (output,) = self.run(batch)
        boxes, scores, masks = (output[name].float().cpu().numpy() for name in ("boxes", "scores", "masks"))
        return Detections(boxes, output["labels"].cpu().numpy(), scores, masks[:, 0])


def detect_tiled(engine: DetectorEngine, chw: npt.NDArray[np.float32], tile: int, overlap: int) -> Detections:
    """Detect the instances of an image, in overlapping tiles if it is larger than a tile.

    An instance that the edge of a tile cuts is dropped if the neighbouring tile contains all of it. Detections of the same instance in
    several tiles are merged by non-maximum suppression.

    Args:
        engine: The detector.
        chw: Normalised image, (C, H, W), with H and W multiples of the model's stride.
        tile: Edge length of a tile in pixels.
        overlap: Overlap of neighbouring tiles in pixels. Instances up to this size are complete in at least one tile.
    """
    height, width = chw.shape[1:]
    rows, columns = tile_starts(height, tile, overlap), tile_starts(width, tile, overlap)
    if len(rows) == len(columns) == 1:
        return engine.detect(chw[None])
    parts = []
    for top in rows:
        for left in columns:
            crop = np.ascontiguousarray(chw[None, :, top : top + tile, left : left + tile])
            detections = engine.detect(crop)
            cut = np.zeros(len(detections.scores), bool)
            for axis, (start, length) in enumerate(((left, width), (top, height))):
                low, high = detections.boxes[:, axis], detections.boxes[:, axis + 2]
                at_edge = ((low < 1) & (start > 0)) | ((high > tile - 1) & (start + tile < length))
                cut |= at_edge & (high - low < overlap)
            boxes = detections.boxes + np.array([left, top, left, top], np.float32)
            moved = Detections(boxes, detections.classes, detections.scores, detections.masks)
            parts.append(moved.select(~cut))
    names = ("boxes", "classes", "scores", "masks")
    return _without_duplicates(Detections(*(np.concatenate([getattr(part, name) for part in parts]) for name in names)))


def _without_duplicates(detections: Detections) -> Detections:
    import torch
    from torchvision.ops import batched_nms

    boxes, scores, classes = (torch.from_numpy(v) for v in (detections.boxes, detections.scores, detections.classes))
    return detections.select(batched_nms(boxes, scores, classes, _DUPLICATE_IOU).numpy())


def paste_instances(detections: Detections, shape: tuple[int, int], settings: Postprocess) -> Instances:
    """Convert detections to instances that do not overlap.

    Where masks overlap, a pixel belongs to the instance with the highest score. An instance that is covered by more than half is a
    duplicate and is dropped (Kirillov et al. 2019, arXiv:1901.02446). Masks are pasted one at a time, which bounds memory.

    Args:
        detections: The detections of an image.
        shape: Height and width of the image.
        settings: Minimum score and size of an instance.
    """
    detections = detections.select(np.flatnonzero(detections.scores >= settings.min_score))
    detections = detections.select(np.argsort(-detections.scores, kind="stable")[: Instances.MAX_COUNT])
    ids = np.zeros(shape, np.int32)
    for number, (box, mask) in enumerate(zip(detections.boxes, detections.masks, strict=True), 1):
        window, pasted = paste_mask(mask, box, shape)
        ids_in_window, inside = ids[window], pasted > 0.5
        visible = inside & (ids_in_window == 0)
        if np.count_nonzero(visible) >= _MIN_VISIBLE * np.count_nonzero(inside):
            ids_in_window[visible] = number
    areas = np.bincount(ids.reshape(-1), minlength=len(detections.scores) + 1)[1:]
    return select_instances(ids, detections.classes, detections.scores.astype(np.float64), areas, settings)


def class_probabilities(
    detections: Detections, shape: tuple[int, int], n_classes: int, min_score: float
) -> npt.NDArray[np.float32]:
    """Convert detections to class probabilities per pixel.

    A class gets the largest score times mask value of its instances; the background gets what the largest of all classes leaves. The sum
    is then normalised to 1.

    Args:
        detections: The detections of an image.
        shape: Height and width of the image.
        n_classes: Number of classes with the background.
        min_score: Detections with a lower score are ignored.

    Returns:
        (n_classes, H, W), float32, summing to 1 over classes.
    """
    confidence = np.zeros((n_classes, *shape), np.float32)
    for box, label, score, mask in zip(
        detections.boxes, detections.classes, detections.scores, detections.masks, strict=True
    ):
        if score < min_score:
            continue
        window, pasted = paste_mask(mask, box, shape)
        confidence_in_window = confidence[label][window]
        np.maximum(confidence_in_window, np.float32(score) * pasted, out=confidence_in_window)
    confidence[0] = 1 - confidence[1:].max(0, initial=0)
    return confidence / confidence.sum(0)


def paste_mask(
    mask: npt.NDArray[np.float32], box: npt.NDArray[np.float32], shape: tuple[int, int]
) -> tuple[tuple[slice, slice], npt.NDArray[np.float32]]:
    """Resize a mask to its box in an image, by bilinear interpolation.

    Cell i of m stands for the pixel at ``first + (i + 0.5) / m * (last - first)``: torchvision's `roi_align` samples the training masks
    there.

    Args:
        mask: (m, m), float32, 0..1, in the frame of the box.
        box: (4,), x and y of the first corner, then of the last.
        shape: Height and width of the image.

    Returns:
        The window of the image that the box covers, and the values of the mask there.
    """
    import cv2

    window, grids = [], []
    for first, last, length, cells in zip(box[1::-1], box[:1:-1], shape, mask.shape, strict=True):
        begin = min(max(0, round(float(first))), length)
        end = min(max(begin, round(float(last))), length)
        window.append(slice(begin, end))
        grids.append((np.arange(begin, end, dtype=np.float32) - first) * (cells / max(last - first, 1e-3)) - 0.5)
    if not all(len(grid) for grid in grids):
        return (window[0], window[1]), np.zeros(tuple(len(grid) for grid in grids), np.float32)
    y, x = np.meshgrid(*(grid.astype(np.float32) for grid in grids), indexing="ij")
    pasted: npt.NDArray[np.float32] = cv2.remap(mask, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return (window[0], window[1]), pasted

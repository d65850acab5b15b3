"""From a detector's boxes and masks to the objects of an image."""

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
"""What counts as found where nothing better was chosen on the validation split."""
_SAME = 0.5
"""Boxes of a class with a larger IoU, seen in two tiles, are one object."""


@dataclass(frozen=True)
class Detections:
    """What a detector says of an image, the surest first.

    boxes: (n, 4), float32: x and y of the first corner and of the last. classes: (n,), int64. scores: (n,), float32.
    masks: (n, 28, 28), float32, 0..1, in the frame of the box.
    """

    boxes: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    masks: npt.NDArray[np.float32]

    def at(self, places: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Detections:
        """Some of them, in the order of `places`."""
        return Detections(self.boxes[places], self.classes[places], self.scores[places], self.masks[places])


class DetectorEngine(TorchEngine):
    """A torch detector (`segpipe.models.detection.mask_rcnn_network`) in evaluation mode."""

    def detect(self, batch: Batch) -> Detections:
        """The objects of one normalised image (1, C, H, W)."""
        (found,) = self.run(batch)
        boxes, scores, masks = (found[name].float().cpu().numpy() for name in ("boxes", "scores", "masks"))
        return Detections(boxes, found["labels"].cpu().numpy(), scores, masks[:, 0])


def detect_tiled(engine: DetectorEngine, chw: npt.NDArray[np.float32], tile: int, overlap: int) -> Detections:
    """The objects of an image (C, H, W), in tiles where it is larger than `tile` either way.

    What a tile cuts is left to the neighbour that sees all of it: `overlap` is the size of objects that is sure to be whole in
    one of them. What two tiles saw counts once.
    """
    height, width = chw.shape[1:]
    rows, columns = tile_starts(height, tile, overlap), tile_starts(width, tile, overlap)
    if len(rows) == len(columns) == 1:
        return engine.detect(chw[None])
    parts = []
    for top in rows:
        for left in columns:
            piece = np.ascontiguousarray(chw[None, :, top : top + tile, left : left + tile])
            found = engine.detect(piece)
            cut = np.zeros(len(found.scores), bool)
            for axis, (start, length) in enumerate(((left, width), (top, height))):
                low, high = found.boxes[:, axis], found.boxes[:, axis + 2]
                at_edge = ((low < 1) & (start > 0)) | ((high > tile - 1) & (start + tile < length))
                cut |= at_edge & (high - low < overlap)
            moved = found.boxes + np.array([left, top, left, top], np.float32)
            parts.append(Detections(moved, found.classes, found.scores, found.masks).at(~cut))
    names = ("boxes", "classes", "scores", "masks")
    return _once(Detections(*(np.concatenate([getattr(part, name) for part in parts]) for name in names)))


def _once(found: Detections) -> Detections:
    import torch
    from torchvision.ops import batched_nms

    boxes, scores, classes = (torch.from_numpy(v) for v in (found.boxes, found.scores, found.classes))
    return found.at(batched_nms(boxes, scores, classes, _SAME).numpy())


def paste_instances(found: Detections, shape: tuple[int, int], how: Postprocess) -> Instances:
    """The objects of an image (H, W): where masks overlap, a pixel belongs to the surest, and what surer ones cover by more than
    half is one of them seen again (Kirillov et al. 2019, arXiv:1901.02446). One mask is drawn at a time.
    """
    found = found.at(np.flatnonzero(found.scores >= how.min_score))
    found = found.at(np.argsort(-found.scores, kind="stable")[: Instances.MOST])
    ids = np.zeros(shape, np.int32)
    for number, (box, mask) in enumerate(zip(found.boxes, found.masks, strict=True), 1):
        place, drawn = paste_mask(mask, box, shape)
        part, mask_here = ids[place], drawn > 0.5
        seen = mask_here & (part == 0)
        if 2 * np.count_nonzero(seen) >= np.count_nonzero(mask_here):
            part[seen] = number
    areas = np.bincount(ids.reshape(-1), minlength=len(found.scores) + 1)[1:]
    return select_instances(ids, found.classes, found.scores.astype(np.float64), areas, how)


def class_probabilities(
    found: Detections, shape: tuple[int, int], n_classes: int, min_score: float
) -> npt.NDArray[np.float32]:
    """(n_classes, H, W), float32, summing to 1: of a class, score times mask of its surest object there; the background has what
    the surest of all leaves."""
    sure = np.zeros((n_classes, *shape), np.float32)
    for box, label, score, mask in zip(found.boxes, found.classes, found.scores, found.masks, strict=True):
        if score < min_score:
            continue
        place, drawn = paste_mask(mask, box, shape)
        part = sure[label][place]
        np.maximum(part, np.float32(score) * drawn, out=part)
    sure[0] = 1 - sure[1:].max(0, initial=0)
    return sure / sure.sum(0)  # type: ignore[no-any-return]


def paste_mask(
    mask: npt.NDArray[np.float32], box: npt.NDArray[np.float32], shape: tuple[int, int]
) -> tuple[tuple[slice, slice], npt.NDArray[np.float32]]:
    """A mask in the frame of its box -> where it lies in an image (H, W), and its values there, by bilinear interpolation.

    Cell i of m stands for the pixel at ``first + (i + 0.5) / m * (last - first)``: that is where torchvision's `roi_align` took
    the training masks.
    """
    import cv2

    places, grids = [], []
    for first, last, length, cells in zip(box[1::-1], box[:1:-1], shape, mask.shape, strict=True):
        begin = min(max(0, round(float(first))), length)
        end = min(max(begin, round(float(last))), length)
        places.append(slice(begin, end))
        grids.append((np.arange(begin, end, dtype=np.float32) - first) * (cells / max(last - first, 1e-3)) - 0.5)
    if not all(len(grid) for grid in grids):
        return (places[0], places[1]), np.zeros(tuple(len(grid) for grid in grids), np.float32)
    y, x = np.meshgrid(*(grid.astype(np.float32) for grid in grids), indexing="ij")
    drawn: npt.NDArray[np.float32] = cv2.remap(mask, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[assignment]
    return (places[0], places[1]), drawn

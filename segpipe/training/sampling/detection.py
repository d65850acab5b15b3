"""What training on objects needs: crops with boxes and masks, what a batch of them costs, and anchors by the sizes of objects."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segpipe.errors import ConfigError
from segpipe.samples import IGNORE, Sample, object_classes
from segpipe.training.distributed.process_group import sum_over_ranks
from segpipe.training.sampling.crops import Crops

if TYPE_CHECKING:
    from segpipe.models.detection.config import MaskRcnnConfig
    from segpipe.training.sampling.crops import Reader

Target = dict[str, Tensor]
"""boxes (n, 4) int64: x and y of the first corner and of one past the last; labels (n,) int64; masks (n, P, P) uint8."""

DETECTOR_REASONS = {
    "loss": "Mask R-CNN's own: of proposals, classes, boxes and masks, added up",
    "class weights": "none: of the proposals that are learned from, a quarter are objects",
}
_LEAST_PIXELS = 4
"""What the edge of a crop leaves of an object is no object below this."""
_LOOKED_AT = 200
"""Images whose objects are measured."""
_SPREAD = (0.05, 0.95)
"""Quantiles of the sizes of objects that the smallest and the largest anchor have."""


class InstanceCrops(Crops):
    """Crops as of `Crops`, with their objects: ``crops[position] -> (image (C, P, P) float32 normalised, target)``."""

    def __getitem__(self, position: int) -> tuple[npt.NDArray[np.float32], Target]:
        image, marks = self.draw(position, class_and_instance)
        return image, target_of(marks[..., 0], marks[..., 1])

    @staticmethod
    def collate(crops: list[tuple[npt.NDArray[np.float32], Any]]) -> tuple[Tensor, Any]:
        """A batch of crops: images (N, C, P, P) float32, and their targets in a list."""
        return torch.stack([torch.from_numpy(image) for image, _ in crops]), [target for _, target in crops]


def class_and_instance(sample: Sample) -> npt.NDArray[np.uint16]:
    """Class ids and object ids of a sample side by side, (H, W, 2)."""
    assert sample.labels is not None and sample.instances is not None, "plan has seen to it"
    return np.stack([sample.labels.astype(np.uint16), sample.instances], axis=-1)


def target_of(labels: np.ndarray, ids: np.ndarray) -> Target:
    """The objects of a crop, each of the class that most of its pixels have. labels, ids: (P, P); ids are 0 for none.

    Left out: ignored pixels, objects of class 0, and what has fewer than four pixels.
    """
    ids = np.where(labels == IGNORE, 0, ids)
    numbers, kinds, pixels = object_classes(labels, ids)
    kept = (numbers > 0) & (kinds > 0) & (pixels >= _LEAST_PIXELS)
    masks = ids[None] == numbers[kept][:, None, None]
    across, down = masks.any(1), masks.any(2)
    edge = ids.shape[1]
    boxes = np.stack(
        [across.argmax(1), down.argmax(1), edge - across[:, ::-1].argmax(1), len(ids) - down[:, ::-1].argmax(1)], axis=1
    )
    return {
        "boxes": torch.from_numpy(boxes),
        "labels": torch.from_numpy(kinds[kept]),
        "masks": torch.from_numpy(masks.view(np.uint8)),
    }


def detection_loss(model: torch.nn.Module, batch: Any, device: torch.device) -> Tensor:
    """The objective of a detector: the sum of its losses. batch: images (N, C, P, P) on the device, targets in a list.

    Of several processes, each draws the proposals to learn from in its own images, and its losses count by the number of these. Of
    proposals, every image gives as many, so that is the mean over all; the loss of masks remains a mean over the objects found in one
    process. (Those who train detectors on many devices leave all of them so.)
    """
    images, targets = batch
    there = [{name: value.to(device, non_blocking=True) for name, value in target.items()} for target in targets]
    losses: list[Tensor] = list(model(images, there).values())
    total = torch.stack([loss.float() for loss in losses]).sum()
    count = images.new_full((), len(images), dtype=torch.float32)
    return sum_over_ranks(total * (count / sum_over_ranks(count)))


def fit_to_objects(config: MaskRcnnConfig, train: Reader, reasons: dict[str, str]) -> MaskRcnnConfig:
    """The settings with anchors, levels and the number of detections that the training images' objects ask for, where not set.

    Raises ConfigError where the dataset has no objects.
    """
    from segpipe.models.detection.config import STRIDES, levels

    edges, most = _measure(train)
    if not edges:
        raise ConfigError(
            "a detector learns from objects, and the training images have none",
            fix="import objects (COCO, label maps), or choose a semantic family such as unet",
        )
    low, high = (float(edge) for edge in np.quantile(edges, _SPREAD))
    if config.anchors:
        low, high = config.anchors[0], config.anchors[-1]
    stride = config.first_stride or max(s for s in STRIDES[:3] if s == STRIDES[0] or 4 * s <= low)
    count = min(len(levels(stride)), 1 + math.ceil(math.log2(max(1.0, high / low)) - 0.25))
    anchors = config.anchors or tuple(float(round(edge)) for edge in np.geomspace(max(4.0, low), max(4.0, high), count))
    found = {"anchors": anchors, "first_stride": stride, "detections": config.detections or max(100, 2 * most)}
    reasons["anchors"] = (
        f"{', '.join(f'{edge:g}' for edge in anchors)} pixels from stride {stride} on: nine in ten of {len(edges)} objects measure "
        f"{low:.0f} to {high:.0f}; an image holds {most} at most"
    )
    return type(config).model_validate(config.model_dump() | found)


def _measure(train: Reader) -> tuple[list[float], int]:
    """Edges of the objects (root of the box's area) of up to `_LOOKED_AT` images, and the most objects that one of these has."""
    from scipy import ndimage

    edges, most = [], 0
    for index in np.unique(np.linspace(0, len(train) - 1, _LOOKED_AT).astype(int)):
        ids = train[int(index)].instances
        boxes = [box for box in ndimage.find_objects(ids) if box is not None] if ids is not None else []
        edges += [math.sqrt(math.prod(part.stop - part.start for part in box)) for box in boxes]
        most = max(most, len(boxes))
    return edges, most

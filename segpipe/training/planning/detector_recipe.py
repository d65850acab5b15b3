"""The settings of a detector that follow from the sizes of the training instances: anchors, levels and number of detections."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from segpipe.errors import ConfigError

if TYPE_CHECKING:
    from segpipe.models.detection.mask_rcnn_config import MaskRcnnConfig
    from segpipe.training.planning.plan_draft import PlanDraft
    from segpipe.training.sampling.crops import Reader

_MAX_IMAGES = 200
"""Images whose instances are measured."""
_SIZE_QUANTILES = (0.05, 0.95)
"""Quantiles of the sizes of instances that the smallest and the largest anchor have."""
_MIN_ANCHOR = 4.0
_MIN_DETECTIONS = 100


def fit_to_instances(draft: PlanDraft, config: MaskRcnnConfig) -> MaskRcnnConfig:
    """Fill in anchors, finest level and number of detections, where they are not set, from the training instances.

    Args:
        draft: the plan so far; the reason is recorded in it.
        config: the settings of the detector.

    Raises:
        ConfigError: The dataset has no instances.
    """
    from segpipe.models.detection.mask_rcnn_config import STRIDES, pyramid_strides

    edges, most = _measure_instances(draft.train)
    if not edges:
        raise ConfigError(
            "a detector learns from instances, and the training images have none",
            fix="import instances (COCO, label maps), or choose a semantic family such as unet",
        )
    low, high = (float(edge) for edge in np.quantile(edges, _SIZE_QUANTILES))
    if config.anchors:
        low, high = config.anchors[0], config.anchors[-1]
    stride = config.first_stride or max(s for s in STRIDES[:3] if s == STRIDES[0] or 4 * s <= low)
    count = min(len(pyramid_strides(stride)), 1 + math.ceil(math.log2(max(1.0, high / low)) - 0.25))
    sizes = np.geomspace(max(_MIN_ANCHOR, low), max(_MIN_ANCHOR, high), count)
    anchors = config.anchors or tuple(float(round(edge)) for edge in sizes)
    draft.explain(
        "anchors",
        f"{', '.join(f'{edge:g}' for edge in anchors)} pixels from stride {stride} on: nine in ten of {len(edges)} instances measure "
        f"{low:.0f} to {high:.0f}; an image has at most {most}",
    )
    detections = config.detections or max(_MIN_DETECTIONS, 2 * most)
    fitted = {"anchors": anchors, "first_stride": stride, "detections": detections}
    return type(config).model_validate(config.model_dump() | fitted)


def explain_detector(draft: PlanDraft) -> None:
    """Record the reasons that are the same for all detectors."""
    draft.explain("loss", "that of Mask R-CNN: of proposals, classes, boxes and masks, added up")
    draft.explain("class weights", "none: a quarter of the proposals that are learned from are instances")


def _measure_instances(train: Reader) -> tuple[list[float], int]:
    """Measure the instances of up to 200 images.

    Returns:
        The edge of each instance (square root of its box's area) in pixels, and the largest number of instances in an image.
    """
    from scipy import ndimage

    edges, most = [], 0
    for index in np.unique(np.linspace(0, len(train) - 1, _MAX_IMAGES).astype(int)):
        ids = train[int(index)].instances
        boxes = [box for box in ndimage.find_objects(ids) if box is not None] if ids is not None else []
        edges += [math.sqrt(math.prod(side.stop - side.start for side in box)) for box in boxes]
        most = max(most, len(boxes))
    return edges, most

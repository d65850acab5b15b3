"""Settings and constants of Mask R-CNN."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from segpipe.models.semantic.encoder_decoders import EncoderConfig

STRIDES = (4, 8, 16, 32)
"""Strides of the levels of the feature pyramid, finest first."""
COCO_ENCODER = "resnet50"
MIN_SCORE = 0.3
"""Detections with a lower score are dropped before their masks are computed. `train` chooses a threshold that is at least this."""


class MaskRcnnConfig(EncoderConfig):
    """Settings of a Mask R-CNN.

    `encoder_weights: coco` starts from torchvision's ResNet-50-FPN, trained on COCO (from the hub).
    """

    channels: int = Field(128, ge=16, le=1024)
    """Channels of each level of the pyramid; 256 allows the heads of COCO weights to be loaded too."""
    hidden: int = Field(512, ge=16, le=4096)
    """Width of the box head; 1024 allows that of COCO weights to be loaded."""
    mask_convs: int = Field(2, ge=1, le=8)
    """Convolutions of the mask head; COCO weights have 4."""
    box_batch: int = Field(64, ge=4, le=1024)
    """Proposals per image that train the heads, a quarter of them instances."""
    anchors: tuple[float, ...] = ()
    """Edge lengths of the anchors in pixels, one per level of the pyramid, finest first; empty: `plan` chooses them from the sizes of the
    instances."""
    first_stride: int = 0
    """Stride of the finest level that is searched: 4, 8, 16 or 32; 0: `plan` chooses it from the smallest anchor."""
    detections: int = Field(0, ge=0, le=5000)
    """Maximum number of instances detected in an image (in a tile of a large one); 0: `plan` takes twice the largest number in a training
    image."""

    @model_validator(mode="after")
    def _levels(self) -> Self:
        if self.first_stride not in (0, *STRIDES):
            raise ValueError(f"first_stride must be 0 or one of {STRIDES}, not {self.first_stride}")
        if len(self.anchors) > len(pyramid_strides(self.first_stride or STRIDES[0])):
            raise ValueError(f"there are more anchors than levels from stride {self.first_stride or STRIDES[0]} on")
        if self.encoder_weights == "coco" and self.encoder != COCO_ENCODER:
            raise ValueError(f"COCO weights need `encoder: {COCO_ENCODER}`, not {self.encoder}")
        return self


def pyramid_strides(first_stride: int) -> tuple[int, ...]:
    """Return the strides of the pyramid's levels from `first_stride` (one of `STRIDES`) on, finest first."""
    return STRIDES[STRIDES.index(first_stride) :]

"""Settings of a Mask R-CNN, and what is fixed about it."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from segpipe.models.semantic.encoder_decoders import EncoderConfig

STRIDES = (4, 8, 16, 32)
"""Of the pyramid's levels."""
COCO_ENCODER = "resnet50"
MIN_SCORE = 0.3
"""What the network is less sure of is no detection, and costs no mask. `train` chooses a bound from here on."""


class MaskRcnnConfig(EncoderConfig):
    """Settings of a Mask R-CNN. `encoder_weights: coco` starts from torchvision's ResNet-50-FPN, trained on COCO (the hub)."""

    channels: int = Field(128, ge=16, le=1024)
    """Of every level of the pyramid; 256 takes over heads of COCO weights too."""
    hidden: int = Field(512, ge=16, le=4096)
    """Width of the box head; 1024 takes over that of COCO weights."""
    mask_convs: int = Field(2, ge=1, le=8)
    """Convolutions of the mask head; COCO weights have 4."""
    box_batch: int = Field(64, ge=4, le=1024)
    """Proposals that an image trains the heads with, a quarter of them objects."""
    anchors: tuple[float, ...] = ()
    """Edge of the anchors in pixels, one for each level of the pyramid, finest first; empty: `plan` takes the sizes of objects."""
    first_stride: int = 0
    """Stride of the finest level that is searched: 4, 8, 16 or 32; 0: `plan` chooses by the smallest anchor."""
    detections: int = Field(0, ge=0, le=5000)
    """Objects found in an image (a tile of a large one) at most; 0: `plan` takes twice the most that a training image has."""

    @model_validator(mode="after")
    def _levels(self) -> Self:
        if self.first_stride not in (0, *STRIDES):
            raise ValueError(f"first_stride is 0 or one of {STRIDES}, not {self.first_stride}")
        if len(self.anchors) > len(pyramid_strides(self.first_stride or STRIDES[0])):
            raise ValueError(f"there are more anchors than levels from stride {self.first_stride or STRIDES[0]} on")
        if self.encoder_weights == "coco" and self.encoder != COCO_ENCODER:
            raise ValueError(f"COCO weights belong to `encoder: {COCO_ENCODER}`, not {self.encoder}")
        return self


def pyramid_strides(first_stride: int) -> tuple[int, ...]:
    """Strides of the pyramid from one on."""
    return STRIDES[STRIDES.index(first_stride) :]

"""Mask R-CNN: boxes proposed on a feature pyramid, each with a class, a score and a mask of its own.

He, Gkioxari, Dollár, Girshick 2017, arXiv:1703.06870; the pyramid: Lin et al. 2017, arXiv:1612.03144. Its settings, and where its
first weights come from; the network itself is `segpipe.models.rcnn`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from segpipe.errors import ConfigError, MissingError
from segpipe.models.semantic import EncoderConfig
from segpipe.models.weights import Weights, encoder_state, load_encoder, resolve_encoder

if TYPE_CHECKING:
    from segpipe.models.rcnn import MaskRcnn

STRIDES = (4, 8, 16, 32)
"""Of the pyramid's levels."""
COCO_ENCODER = "resnet50"
LEAST_SCORE = 0.3
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
        if len(self.anchors) > len(levels(self.first_stride or STRIDES[0])):
            raise ValueError(f"there are more anchors than levels from stride {self.first_stride or STRIDES[0]} on")
        if self.encoder_weights == "coco" and self.encoder != COCO_ENCODER:
            raise ValueError(f"COCO weights belong to `encoder: {COCO_ENCODER}`, not {self.encoder}")
        return self


def levels(first_stride: int) -> tuple[int, ...]:
    """Strides of the pyramid from one on."""
    return STRIDES[STRIDES.index(first_stride) :]


def build_mask_rcnn(config: MaskRcnnConfig, in_channels: int, n_classes: int) -> MaskRcnn:
    """A Mask R-CNN for classes 1 .. n_classes - 1; class 0 is what is no object."""
    import segmentation_models_pytorch as smp

    from segpipe.models.rcnn import MaskRcnn

    try:
        encoder = smp.encoders.get_encoder(
            resolve_encoder(config.encoder), in_channels=in_channels, depth=5, weights=None
        )
    except (ValueError, NotImplementedError, KeyError, RuntimeError, TypeError) as error:
        raise ConfigError(
            f"encoder `{config.encoder}` does not fit a feature pyramid: {error}",
            fix="choose an encoder with five stages, such as tf_efficientnet_lite0 or resnet34",
        ) from error
    if len(encoder.out_channels) != 6 or 0 in encoder.out_channels[2:]:
        raise ConfigError(
            f"encoder `{config.encoder}` does not fit a feature pyramid", found=f"{len(encoder.out_channels) - 1} stages",
            expected="five", fix="choose tf_efficientnet_lite0 or resnet34",
        )  # fmt: skip
    network = MaskRcnn(config, encoder, n_classes)
    if config.encoder_weights == "coco":
        load_coco(network, coco_state())
    elif (state := encoder_state(config.encoder, config.encoder_weights)) is not None:
        load_encoder(encoder, state, config.encoder)
    return network


def coco_state() -> Weights:
    """torchvision's weights of a Mask R-CNN on ResNet-50-FPN, trained on COCO; downloaded once and kept by torch's hub."""
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

    try:
        return dict(MaskRCNN_ResNet50_FPN_Weights.COCO_V1.get_state_dict(progress=False))
    except OSError as error:  # URLError is one
        raise MissingError(
            f"no COCO weights for mask_rcnn: {next(iter(str(error).splitlines()), type(error).__name__)[:160]}",
            where=MaskRCNN_ResNet50_FPN_Weights.COCO_V1.url,
            fix="put that file into ~/.cache/torch/hub/checkpoints, or set `encoder: tf_efficientnet_lite0` and "
            "`encoder_weights: auto` (installed), or `encoder_weights: none`",
        ) from error


def load_coco(network: MaskRcnn, state: Weights) -> None:
    """Load a Mask R-CNN on ResNet-50-FPN: the encoder, and of the rest whatever has the same shape here."""
    body = "backbone.body."
    load_encoder(
        network.encoder, {k.removeprefix(body): v for k, v in state.items() if k.startswith(body)}, COCO_ENCODER
    )
    own = network.state_dict()
    fit = {
        k: v for k, v in state.items() if k in own and own[k].shape == v.shape and not k.startswith("backbone.encoder")
    }
    network.load_state_dict(own | fit)

"""Mask R-CNN: boxes proposed on a feature pyramid, each with a class, a score and a mask of its own.

He, Gkioxari, Dollár, Girshick 2017, arXiv:1703.06870; the pyramid: Lin et al. 2017, arXiv:1612.03144. How one is built,
and where its first weights come from; the network itself is `segpipe.models.detection.mask_rcnn_network`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from segpipe.errors import ConfigError, MissingError
from segpipe.models.detection.mask_rcnn_config import COCO_ENCODER, MaskRcnnConfig
from segpipe.models.weights.encoder_weights import Weights, encoder_state, load_encoder, resolve_encoder

if TYPE_CHECKING:
    from segpipe.models.detection.mask_rcnn_network import MaskRcnn


def build_mask_rcnn(config: MaskRcnnConfig, in_channels: int, n_classes: int) -> MaskRcnn:
    """A Mask R-CNN for classes 1 .. n_classes - 1; class 0 is what is no object."""
    import segmentation_models_pytorch as smp

    from segpipe.models.detection.mask_rcnn_network import MaskRcnn

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
            f"encoder `{config.encoder}` does not fit a feature pyramid",
            found=f"{len(encoder.out_channels) - 1} stages",
            expected="five",
            fix="choose tf_efficientnet_lite0 or resnet34",
        )
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

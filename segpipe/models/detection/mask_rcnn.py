"""Build a Mask R-CNN and load its initial weights: boxes proposed on a feature pyramid, each with a class, a score and a mask.

He, Gkioxari, Dollár, Girshick 2017, arXiv:1703.06870; the pyramid: Lin et al. 2017, arXiv:1612.03144. The network itself is in
`segpipe.models.detection.mask_rcnn_network`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from segpipe.errors import ConfigError, MissingError
from segpipe.models.detection.mask_rcnn_config import COCO_ENCODER, MaskRcnnConfig
from segpipe.models.weights.encoder_weights import Weights, encoder_state, load_encoder, resolve_encoder
from segpipe.ops.deferred_compiler import import_without_compiler

if TYPE_CHECKING:
    from segpipe.models.detection.mask_rcnn_network import MaskRcnn


def build_mask_rcnn(config: MaskRcnnConfig, in_channels: int, n_classes: int) -> MaskRcnn:
    """Build a Mask R-CNN.

    Args:
        config: Settings.
        in_channels: Number of channels of the input image.
        n_classes: Number of classes with the background, which is class 0; instances have classes 1 .. n_classes - 1.

    Returns:
        The network, with the weights that `config.encoder_weights` asks for.

    Raises:
        ConfigError: The encoder does not fit a feature pyramid.
        MissingError: Pretrained weights are not available.
    """
    import_without_compiler("torchvision", "timm", "segmentation_models_pytorch")
    import segmentation_models_pytorch as smp

    from segpipe.models.detection.mask_rcnn_network import MaskRcnn

    try:
        encoder = smp.encoders.get_encoder(
            resolve_encoder(config.encoder), in_channels=in_channels, depth=5, weights=None
        )
    except (ValueError, NotImplementedError, KeyError, RuntimeError, TypeError) as error:
        raise ConfigError(
            f"encoder `{config.encoder}` does not fit a feature pyramid: {error}",
            fix="choose an encoder with five stages, for example tf_efficientnet_lite0 or resnet34",
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
    """Download torchvision's weights of a Mask R-CNN on ResNet-50-FPN, trained on COCO; torch's hub caches them."""
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

    try:
        return dict(MaskRCNN_ResNet50_FPN_Weights.COCO_V1.get_state_dict(progress=False))
    except OSError as error:  # URLError is an OSError
        raise MissingError(
            f"no COCO weights for mask_rcnn: {next(iter(str(error).splitlines()), type(error).__name__)[:160]}",
            where=MaskRCNN_ResNet50_FPN_Weights.COCO_V1.url,
            fix="put that file into ~/.cache/torch/hub/checkpoints, or set `encoder: tf_efficientnet_lite0` and "
            "`encoder_weights: auto` (installed), or `encoder_weights: none`",
        ) from error


def load_coco(network: MaskRcnn, state: Weights) -> None:
    """Load the weights of a Mask R-CNN on ResNet-50-FPN: all of the encoder, and every other tensor that has the same shape.

    Args:
        network: A Mask R-CNN whose encoder is ResNet-50; changed in place.
        state: Weights by torchvision's names, as `coco_state` returns them.
    """
    body = "backbone.body."
    load_encoder(
        network.encoder, {k.removeprefix(body): v for k, v in state.items() if k.startswith(body)}, COCO_ENCODER
    )
    current = network.state_dict()
    matching = {
        k: v
        for k, v in state.items()
        if k in current and current[k].shape == v.shape and not k.startswith("backbone.encoder")
    }
    network.load_state_dict(current | matching)

"""Networks of torchvision: FCN on a dilated ResNet-50, LR-ASPP on a dilated MobileNetV3.

Each builder returns a module that maps images (N, in_channels, H, W) to logits (N, n_classes, H, W). Its first part is
`network.encoder`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from segpipe.models.weights.encoder_weights import Weights, hub_error, load_encoder, load_matching, read_weights_file
from segpipe.ops.deferred_compiler import import_without_compiler

if TYPE_CHECKING:
    import torch


class TorchvisionConfig(BaseModel):
    """Settings that all networks of torchvision share."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    encoder: str
    encoder_weights: str = Field("auto", min_length=1)
    """auto or imagenet (from the hub), coco (from the hub: the whole network except its last layer), none (random), the path of a file,
    or NAME@VERSION: all weights of a released model."""


class FcnResnet50Config(TorchvisionConfig):
    """Settings of an FCN on ResNet-50."""

    encoder: Literal["resnet50"] = "resnet50"
    """The only encoder that has published weights."""


class LrasppConfig(TorchvisionConfig):
    """Settings of an LR-ASPP on MobileNetV3."""

    encoder: Literal["mobilenet_v3_large"] = "mobilenet_v3_large"
    """The only encoder that has published weights."""


def build_fcn_resnet50(config: FcnResnet50Config, in_channels: int, n_classes: int) -> torch.nn.Module:
    """Build an FCN whose features have stride 8; height and width of images are multiples of 32."""
    return _build("fcn_resnet50", config, in_channels, n_classes)


def build_lraspp_mobilenetv3(config: LrasppConfig, in_channels: int, n_classes: int) -> torch.nn.Module:
    """Build an LR-ASPP whose features have strides 8 and 16; height and width of images are multiples of 32."""
    return _build("lraspp_mobilenet_v3_large", config, in_channels, n_classes)


def _build(name: str, config: TorchvisionConfig, in_channels: int, n_classes: int) -> torch.nn.Module:
    import_without_compiler("torchvision")
    from torchvision.models import get_model

    from segpipe.models.semantic.encoder_and_head import EncoderAndHead, with_channels

    original: Any = get_model(name, weights=None, weights_backbone=None, num_classes=n_classes)
    network = EncoderAndHead(with_channels(original.backbone, in_channels), original.classifier)
    source = config.encoder_weights
    if source == "coco":
        parts = {"backbone": "encoder", "classifier": "head"}
        published = _published_weights(name)
        load_matching(
            network,
            {".".join([parts.get(k.split(".")[0], "-"), *k.split(".")[1:]]): v for k, v in published.items()},
        )
    elif source != "none":
        state = _published_weights(config.encoder) if source in ("auto", "imagenet") else read_weights_file(source)
        # An encoder that was published as a classifier has its layers under `features`.
        load_encoder(network.encoder, {k.removeprefix("features."): v for k, v in state.items()}, config.encoder)
    return network


def _published_weights(name: str) -> Weights:
    """Download the best weights that torchvision publishes for a model; torch's hub caches them."""
    from torchvision.models import get_model_weights

    weights = get_model_weights(name).DEFAULT
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a broken download is a RuntimeError
        raise hub_error(name, error) from error

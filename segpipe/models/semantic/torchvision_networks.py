"""Networks of torchvision: FCN on a dilated ResNet-50, LR-ASPP on a dilated MobileNetV3.

Each builder returns a module (N, in_channels, H, W) -> logits (N, n_classes, H, W) whose first part is `network.encoder`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from segpipe.models.weights.encoder_weights import Weights, hub_error, load_encoder, load_matching, read_weights_file

if TYPE_CHECKING:
    import torch


class TorchvisionConfig(BaseModel):
    """What every network of torchvision can be told."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    encoder: str
    encoder_weights: str = Field("auto", min_length=1)
    """auto or imagenet (the hub), coco (the hub: the whole network, but for its last layer), none (random), a file, or
    NAME@VERSION: a released model, all of its weights."""


class FcnResnet50Config(TorchvisionConfig):
    """Settings of an FCN on ResNet-50."""

    encoder: Literal["resnet50"] = "resnet50"
    """The one encoder that the published weights are for."""


class LrasppConfig(TorchvisionConfig):
    """Settings of an LR-ASPP on MobileNetV3."""

    encoder: Literal["mobilenet_v3_large"] = "mobilenet_v3_large"
    """The one encoder that the published weights are for."""


def build_fcn_resnet50(config: FcnResnet50Config, in_channels: int, n_classes: int) -> torch.nn.Module:
    """An FCN whose features are 8 times smaller than the image; H and W are multiples of 32."""
    return _build("fcn_resnet50", config, in_channels, n_classes)


def build_lraspp_mobilenetv3(config: LrasppConfig, in_channels: int, n_classes: int) -> torch.nn.Module:
    """An LR-ASPP whose features are 8 and 16 times smaller than the image; H and W are multiples of 32."""
    return _build("lraspp_mobilenet_v3_large", config, in_channels, n_classes)


def _build(name: str, config: TorchvisionConfig, in_channels: int, n_classes: int) -> torch.nn.Module:
    from torchvision.models import get_model

    from segpipe.models.semantic.encoder_and_head import EncoderAndHead, with_channels

    made: Any = get_model(name, weights=None, weights_backbone=None, num_classes=n_classes)
    network = EncoderAndHead(with_channels(made.backbone, in_channels), made.classifier)
    source = config.encoder_weights
    if source == "coco":
        names = {"backbone": "encoder", "classifier": "head"}
        stored = _published(name)
        load_matching(
            network, {".".join([names.get(k.split(".")[0], "-"), *k.split(".")[1:]]): v for k, v in stored.items()}
        )
    elif source != "none":
        state = _published(config.encoder) if source in ("auto", "imagenet") else read_weights_file(source)
        # An encoder that was published as a classifier keeps its layers under `features`.
        load_encoder(network.encoder, {k.removeprefix("features."): v for k, v in state.items()}, config.encoder)
    return network


def _published(name: str) -> Weights:
    """The best weights that torchvision publishes for a model, downloaded once and kept by torch's hub."""
    from torchvision.models import get_model_weights

    weights = get_model_weights(name).DEFAULT  # type: ignore[attr-defined]
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a broken download a RuntimeError
        raise hub_error(name, error) from error

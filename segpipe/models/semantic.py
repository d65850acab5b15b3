"""Networks that give every pixel a class, built by segmentation_models_pytorch over any of its encoders or timm's."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from segpipe.errors import ConfigError
from segpipe.models.weights import encoder_state, load_encoder, resolve_encoder

if TYPE_CHECKING:
    import torch


class EncoderConfig(BaseModel):
    """What every network over an encoder can be told."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    encoder: str = "tf_efficientnet_lite0"
    """An encoder of segmentation_models_pytorch or of timm, such as resnet34 or mobilenet_v2."""
    encoder_weights: str = Field("auto", min_length=1)
    """auto (installed weights where there are some, else the hub), imagenet (the hub), none (random), or a file."""


class UnetConfig(EncoderConfig):
    """Settings of a U-Net."""


class DeepLabConfig(EncoderConfig):
    """Settings of a DeepLabV3+."""


def build_unet(config: UnetConfig, in_channels: int, n_classes: int) -> torch.nn.Module:
    """A U-Net: (N, in_channels, H, W) -> logits (N, n_classes, H, W); H and W are multiples of 32."""
    return _build("Unet", config, in_channels, n_classes)


def build_deeplabv3plus(config: DeepLabConfig, in_channels: int, n_classes: int) -> torch.nn.Module:
    """A DeepLabV3+: (N, in_channels, H, W) -> logits (N, n_classes, H, W); H and W are multiples of 16."""
    return _build("DeepLabV3Plus", config, in_channels, n_classes)


def _build(architecture: str, config: EncoderConfig, in_channels: int, n_classes: int) -> torch.nn.Module:
    import segmentation_models_pytorch as smp

    encoder = resolve_encoder(config.encoder)
    arguments: dict[str, Any] = {
        "encoder_name": encoder,
        "encoder_weights": None,
        "in_channels": in_channels,
        "classes": n_classes,
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of encoder names that are mapped on purpose
            network: torch.nn.Module = getattr(smp, architecture)(**arguments)
    except (ValueError, NotImplementedError, KeyError, RuntimeError, TypeError) as error:
        raise ConfigError(
            f"encoder `{config.encoder}` does not fit {architecture}: {error}",
            fix="choose an encoder with five stages, such as tf_efficientnet_lite0 or resnet34",
        ) from error
    state = encoder_state(config.encoder, config.encoder_weights)
    if state is not None:
        load_encoder(network.encoder, state, config.encoder)  # type: ignore[arg-type]
    return network

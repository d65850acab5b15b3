"""Networks that give every pixel a class, built by segmentation_models_pytorch over any of its encoders or timm's.

Each builder returns a module (N, in_channels, H, W) -> logits (N, n_classes, H, W), where H and W are multiples of its family's
stride, and whose first part is `network.encoder`.
"""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from segpipe.errors import ConfigError
from segpipe.models.weights.encoder_weights import encoder_state, load_encoder, resolve_encoder

if TYPE_CHECKING:
    import torch

Rates = tuple[int, int, int]


class EncoderConfig(BaseModel):
    """What every network over an encoder can be told."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    encoder: str = "tf_efficientnet_lite0"
    """An encoder of segmentation_models_pytorch or of timm, such as resnet34 or mobilenet_v2."""
    encoder_weights: str = Field("auto", min_length=1)
    """auto (installed weights where there are some, else the hub), imagenet (the hub), none (random), a file, or
    NAME@VERSION: a released model, all of its weights."""
    shrink: Literal[1, 2, 4, "auto"] = "auto"
    """How many pixels of an image, along each axis, become one for the network, in training and in service: 2 and 4 are cheaper, the more
    so the heavier the network, and blind to what is finer. auto: 1, but 2 where a wall-clock budget would buy too few steps to learn."""

    def arguments(self) -> dict[str, Any]:
        """What segmentation_models_pytorch is told beside the encoder, the channels and the classes."""
        return {}


def shrink_factor(config: BaseModel) -> Literal[1, 2, 4]:
    """How many pixels of an image, along each axis, become one for a network of these settings; 1 where that is left open."""
    return config.shrink if isinstance(config, EncoderConfig) and config.shrink != "auto" else 1


class UnetConfig(EncoderConfig):
    """Settings of a U-Net."""


class UnetPlusPlusConfig(EncoderConfig):
    """Settings of a U-Net++."""


class Vgg16UnetConfig(EncoderConfig):
    """Settings of a U-Net over VGG16 with batch normalisation."""

    encoder: Literal["vgg16_bn"] = "vgg16_bn"
    """VGG16 with batch normalisation."""


class _AtrousConfig(EncoderConfig):
    output_stride: Literal[8, 16] = 16
    """How much smaller than the image the features are at their smallest: 8 sees finer, and takes about three times as long."""
    atrous_rates: Rates = (12, 24, 36)
    """Dilation of the three 3 x 3 convolutions that run side by side; half of it suits crops below 300 pixels."""

    def arguments(self) -> dict[str, Any]:
        return {"encoder_output_stride": self.output_stride, "decoder_atrous_rates": self.atrous_rates}


class DeepLabV3Config(_AtrousConfig):
    """Settings of a DeepLabV3."""


class DeepLabV3PlusConfig(_AtrousConfig):
    """Settings of a DeepLabV3+."""


class FpnConfig(EncoderConfig):
    """Settings of a feature pyramid network."""


class PspnetConfig(EncoderConfig):
    """Settings of a PSPNet."""

    output_stride: Literal[8, 16] = 8
    """How much smaller than the image the features are at their smallest, by dilation as in the paper."""

    def arguments(self) -> dict[str, Any]:
        """All five stages of the encoder, the last ones dilated."""
        return {"encoder_depth": 5, "output_stride": self.output_stride, "upsampling": self.output_stride}


class PanConfig(EncoderConfig):
    """Settings of a pyramid attention network."""


class LinknetConfig(EncoderConfig):
    """Settings of a LinkNet."""


class ManetConfig(EncoderConfig):
    """Settings of a multi-scale attention network."""


class UpernetConfig(EncoderConfig):
    """Settings of a UPerNet."""


class SegformerConfig(EncoderConfig):
    """Settings of a SegFormer."""

    encoder: str = "mit_b0"
    """A mix transformer, mit_b0 (the smallest) to mit_b5; any other encoder works too."""


def _build(architecture: str, config: EncoderConfig, in_channels: int, n_classes: int) -> torch.nn.Module:
    """The network of this name in segmentation_models_pytorch, its encoder with its first weights."""
    import segmentation_models_pytorch as smp

    arguments: dict[str, Any] = {
        "encoder_name": resolve_encoder(config.encoder),
        "encoder_weights": None,
        "in_channels": in_channels,
        "classes": n_classes,
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of encoder names that are mapped on purpose
            network: torch.nn.Module = getattr(smp, architecture)(**arguments, **config.arguments())
    except (ValueError, NotImplementedError, KeyError, RuntimeError, TypeError) as error:
        raise ConfigError(
            f"encoder `{config.encoder}` does not fit {architecture}: {error}",
            fix="choose an encoder with five stages, such as tf_efficientnet_lite0 or resnet34",
        ) from error
    state = encoder_state(config.encoder, config.encoder_weights)
    if state is not None:
        load_encoder(network.encoder, state, config.encoder)  # type: ignore[arg-type]
    return network


def _build_doubling(architecture: str, config: EncoderConfig, in_channels: int, n_classes: int) -> torch.nn.Module:
    """A network whose decoder doubles its features, block by block."""
    from segpipe.ops.fused_upsample import use_fused_upsampling

    return use_fused_upsampling(_build(architecture, config, in_channels, n_classes))


build_unet = build_unet_vgg16 = functools.partial(_build_doubling, "Unet")
build_unetplusplus = functools.partial(_build_doubling, "UnetPlusPlus")
build_manet = functools.partial(_build_doubling, "MAnet")
build_deeplabv3 = functools.partial(_build, "DeepLabV3")
build_deeplabv3plus = functools.partial(_build, "DeepLabV3Plus")


def build_fpn(config: FpnConfig, in_channels: int, n_classes: int) -> torch.nn.Module:
    """(N, in_channels, H, W) -> logits (N, n_classes, H, W); H and W are multiples of 32."""
    from segpipe.models.semantic.pyramid_merge import SequentialSum
    from segpipe.ops.feature_pyramid import use_fused_pyramid

    network = _build("FPN", config, in_channels, n_classes)
    network.decoder.merge = SequentialSum()  # type: ignore[union-attr]
    return use_fused_pyramid(network)


build_pspnet = functools.partial(_build, "PSPNet")
build_pan = functools.partial(_build, "PAN")
build_linknet = functools.partial(_build, "Linknet")
build_upernet = functools.partial(_build, "UPerNet")
build_segformer = functools.partial(_build, "Segformer")

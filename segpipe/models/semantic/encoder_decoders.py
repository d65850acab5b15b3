"""Encoder-decoder networks of segmentation_models_pytorch, with any of its encoders or timm's.

Each builder returns a module that maps images (N, in_channels, H, W) to logits (N, n_classes, H, W), where H and W are multiples of
the family's stride. The module's first part is `network.encoder`.
"""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from segpipe.errors import ConfigError
from segpipe.models.weights.encoder_weights import encoder_state, load_encoder, resolve_encoder
from segpipe.ops.deferred_compiler import import_without_compiler

if TYPE_CHECKING:
    import torch

Rates = tuple[int, int, int]


class EncoderConfig(BaseModel):
    """Settings that all networks with an encoder share."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    encoder: str = "tf_efficientnet_lite0"
    """An encoder of segmentation_models_pytorch or of timm, for example resnet34 or mobilenet_v2."""
    encoder_weights: str = Field("auto", min_length=1)
    """auto (installed weights if there are any, otherwise from the hub), imagenet (from the hub), none (random), the path of a file, or
    NAME@VERSION: all weights of a released model."""
    shrink: Literal[1, 2, 4, "auto"] = "auto"
    """Downsampling factor of the image for the network, along each axis, in training and in service. 2 and 4 are cheaper, above all for
    heavy networks, but lose fine details. auto: 1, or 2 if a wall-clock budget allows too few training steps."""

    def architecture_arguments(self) -> dict[str, Any]:
        """Return arguments for segmentation_models_pytorch in addition to the encoder, the channels and the classes."""
        return {}


def shrink_factor(config: BaseModel) -> Literal[1, 2, 4]:
    """Return the downsampling factor of the image that the settings of a network ask for; 1 if it is not set."""
    return config.shrink if isinstance(config, EncoderConfig) and config.shrink != "auto" else 1


class UnetConfig(EncoderConfig):
    """Settings of a U-Net."""


class UnetPlusPlusConfig(EncoderConfig):
    """Settings of a U-Net++."""


class Vgg16UnetConfig(EncoderConfig):
    """Settings of a U-Net with a VGG16 encoder (batch normalisation)."""

    encoder: Literal["vgg16_bn"] = "vgg16_bn"
    """VGG16 with batch normalisation."""


class _AtrousConfig(EncoderConfig):
    output_stride: Literal[8, 16] = 16
    """Stride of the deepest features: 8 preserves finer details and takes about three times as long."""
    atrous_rates: Rates = (12, 24, 36)
    """Dilations of the three parallel 3 x 3 convolutions; halve them for crops below 300 pixels."""

    def architecture_arguments(self) -> dict[str, Any]:
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
    """Stride of the deepest features, reached by dilation as in the paper."""

    def architecture_arguments(self) -> dict[str, Any]:
        """Return arguments that use all five stages of the encoder, the last ones dilated."""
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
    """A mix transformer, mit_b0 (the smallest) to mit_b5; other encoders work too."""


def _build(architecture: str, config: EncoderConfig, in_channels: int, n_classes: int) -> torch.nn.Module:
    """Build the network of this name in segmentation_models_pytorch and load the weights of its encoder."""
    import_without_compiler("timm", "segmentation_models_pytorch")
    import segmentation_models_pytorch as smp

    arguments: dict[str, Any] = {
        "encoder_name": resolve_encoder(config.encoder),
        "encoder_weights": None,
        "in_channels": in_channels,
        "classes": n_classes,
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # smp warns of encoder names that it maps to timm's
            network: torch.nn.Module = getattr(smp, architecture)(**arguments, **config.architecture_arguments())
    except (ValueError, NotImplementedError, KeyError, RuntimeError, TypeError) as error:
        raise ConfigError(
            f"encoder `{config.encoder}` does not fit {architecture}: {error}",
            fix="choose an encoder with five stages, for example tf_efficientnet_lite0 or resnet34",
        ) from error
    state = encoder_state(config.encoder, config.encoder_weights)
    if state is not None:
        load_encoder(network.encoder, state, config.encoder)  # type: ignore[arg-type]
    return network


def _build_with_fused_upsampling(
    architecture: str, config: EncoderConfig, in_channels: int, n_classes: int
) -> torch.nn.Module:
    """Build a network whose decoder doubles the size of its features in each block, with the faster upsampling of `segpipe.ops`."""
    network = _build(architecture, config, in_channels, n_classes)
    from segpipe.ops.fused_upsample import use_fused_upsampling  # after `_build`, which imports the libraries fast

    return use_fused_upsampling(network)


build_unet = build_unet_vgg16 = functools.partial(_build_with_fused_upsampling, "Unet")
build_unetplusplus = functools.partial(_build_with_fused_upsampling, "UnetPlusPlus")
build_manet = functools.partial(_build_with_fused_upsampling, "MAnet")
build_deeplabv3 = functools.partial(_build, "DeepLabV3")
build_deeplabv3plus = functools.partial(_build, "DeepLabV3Plus")
build_pspnet = functools.partial(_build, "PSPNet")
build_pan = functools.partial(_build, "PAN")
build_linknet = functools.partial(_build, "Linknet")
build_upernet = functools.partial(_build, "UPerNet")
build_segformer = functools.partial(_build, "Segformer")


def build_fpn(config: FpnConfig, in_channels: int, n_classes: int) -> torch.nn.Module:
    """Build a feature pyramid network, with a faster merge of its levels and without its unused finest level.

    Args:
        config: Settings.
        in_channels: Number of channels of the input image.
        n_classes: Number of output channels.

    Returns:
        A module that maps images (N, in_channels, H, W) to logits (N, n_classes, H, W); H and W are multiples of 32.
    """
    network = _build("FPN", config, in_channels, n_classes)
    from segpipe.models.semantic.pyramid_merge import SequentialSum
    from segpipe.ops.feature_pyramid import use_fused_pyramid  # after `_build`, which imports the libraries fast

    network.decoder.merge = SequentialSum()  # type: ignore[union-attr]
    return use_fused_pyramid(network)

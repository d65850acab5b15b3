"""Freezing a pretrained encoder in the first steps, so that a new decoder learns to use its features before they change."""

from __future__ import annotations

from collections.abc import Callable

import torch

from segpipe.errors import ConfigError


def encoder_of(network: torch.nn.Module, setting: str = "freeze_encoder", default: int = 0) -> torch.nn.Module:
    """Return the encoder of a network, which can be frozen or have its own learning rate.

    Args:
        network: the network.
        setting: the setting under `train` that needs an encoder.
        default: the value of that setting for networks without one.

    Raises:
        ConfigError: The network has no encoder; the error advises to set the setting to `default`.
    """
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, torch.nn.Module):
        raise ConfigError(
            f"{type(network).__name__} has no separate encoder",
            where=f"train.{setting}",
            fix=f"set it to {default} for this candidate: `train: {{{setting}: {default}}}` under it",
        )
    return encoder


def encoder_switch(network: torch.nn.Module) -> Callable[[bool], None]:
    """Return ``switch(frozen)``, which freezes the encoder's parameters and the statistics of its normalisation layers, or unfreezes
    them.

    Only parameters that are trainable now are unfrozen again. Frozen parameters get no gradient, so that no optimiser and no weight
    decay changes them, and the backward pass ends before them.
    """
    encoder = encoder_of(network)
    trainable = [parameter for parameter in encoder.parameters() if parameter.requires_grad]

    def switch(frozen: bool) -> None:
        for parameter in trainable:
            parameter.requires_grad_(not frozen)
        encoder.train(not frozen)

    return switch

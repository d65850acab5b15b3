"""The first steps with the encoder as it came: the new decoder learns to read it before gradients that mean little reach it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from segpipe.errors import ConfigError


def encoder_of(network: torch.nn.Module, setting: str = "freeze_encoder", usual: int = 0) -> torch.nn.Module:
    """The part that can be held, or learn at a rate of its own. Raises ConfigError where the network has none, which says that the
    setting has to be as usual."""
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, torch.nn.Module):
        raise ConfigError(
            f"{type(network).__name__} has no encoder that could be treated by itself",
            where=f"train.{setting}",
            fix=f"set it to {usual} for this candidate: `train: {{{setting}: {usual}}}` under it",
        )
    return encoder


def encoder_switch(network: torch.nn.Module) -> Callable[[bool], None]:
    """``switch(frozen)``: hold the encoder's parameters and the statistics of its normalisation layers, or let them go.

    Only what is trained now is let go again. Held parameters get no gradient, so that no optimiser and no weight decay moves
    them, and the backward pass ends before them.
    """
    encoder = encoder_of(network)
    trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]

    def switch(frozen: bool) -> None:
        for parameter in trained:
            parameter.requires_grad_(not frozen)
        encoder.train(not frozen)

    return switch

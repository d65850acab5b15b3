"""A network of the user's own: ``factory: my_module:build`` in params.yaml, with my_module.py in the workspace."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from segpipe.errors import ConfigError

if TYPE_CHECKING:
    import torch


class FactoryConfig(BaseModel):
    """Settings of a user's own network. Every further key is handed to the factory."""

    model_config = ConfigDict(extra="allow", frozen=True)
    factory: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")
    """module:function, with the module in the workspace or installed; it is called as
    ``function(in_channels, n_classes, **other_keys)`` and returns a torch module (N, C, H, W) -> logits (N, n_classes, H, W)."""
    encoder_weights: str = Field("none", pattern=r"^(none|.+@v\d+\.\d+\.\d+)$")
    """none (as the factory made them), or NAME@VERSION: a released model, all of its weights."""


def build_custom(config: FactoryConfig, in_channels: int, n_classes: int) -> torch.nn.Module:
    """What the factory makes, once it has shown that it maps images to logits of their size."""
    import torch

    options = dict(config.model_extra or {})
    call = f"{config.factory}({in_channels}, {n_classes}{''.join(f', {k}={v!r}' for k, v in options.items())})"
    try:
        network = _find(config.factory)(in_channels, n_classes, **options)
    except TypeError as error:
        raise ConfigError(
            f"the factory can't be called: {error}",
            where="factory",
            found=call,
            fix="let it take the number of channels, the number of classes, and the candidate's further keys by name",
        ) from error
    if not isinstance(network, torch.nn.Module):
        raise ConfigError(
            "the factory makes no network", where="factory", found=type(network).__name__, expected="a torch.nn.Module"
        )
    _check(network, in_channels, n_classes, call)
    return network


def _find(factory: str) -> Callable[..., Any]:
    module, _, name = factory.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # a console script looks beside itself, not where it is called
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, and something that it imports is not
        raise ConfigError(
            f"there is no module `{module}`",
            where="factory",
            found=factory,
            fix=f"put {module.replace('.', '/')}.py into the workspace (beside params.yaml), or install it",
        ) from error
    except AttributeError as error:
        raise ConfigError(f"module `{module}` has no `{name}`", where="factory", found=factory) from error
    if not callable(found):
        raise ConfigError("can't be called", where="factory", found=factory, expected="a function or a class")
    return found  # type: ignore[no-any-return]


def _check(network: torch.nn.Module, in_channels: int, n_classes: int, call: str) -> None:
    """One small image through the network."""
    import torch

    was_training = network.training
    with torch.no_grad():
        logits = network.eval()(torch.zeros(1, in_channels, 64, 96))
    network.train(was_training)
    found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if found != (1, n_classes, 64, 96):
        raise ConfigError(
            "the network of the factory gives no logits of the image's size",
            where=call,
            found=f"{found} for an image (1, {in_channels}, 64, 96)",
            expected=f"(1, {n_classes}, 64, 96)",
            fix="end it with a convolution to the classes and an upsampling to the image's size",
        )

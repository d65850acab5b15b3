"""Networks that see images at a part of their resolution."""

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


@pytest.mark.parametrize("by", [2, 4])
def test_it_answers_as_the_network_does_on_a_smaller_image(by):
    images = torch.randn(2, 3, 128, 256, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        small = images.unfold(2, by, by).unfold(3, by, by).mean((4, 5))
        wanted = F.interpolate(unet()(small), scale_factor=by, mode="bilinear")
        torch.testing.assert_close(unet(shrink=by)(images), wanted)


@pytest.mark.parametrize("shrink", [1, "auto"])
def test_left_open_or_one_it_is_the_network_itself(shrink):
    assert type(unet(shrink=shrink)) is type(unet())


def test_names_weights_and_the_encoder_stay():
    plain, small = unet(), unet(shrink=2)
    assert list(small.state_dict()) == list(plain.state_dict())
    small.load_state_dict(plain.state_dict())
    assert small.encoder is small.get_submodule("encoder")
    images = torch.zeros(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(copy.deepcopy(small)(images), small(images))


def test_the_finest_of_several_levels_is_drawn_back():
    options = {"encoder": "vgg11_bn", "encoder_weights": "none", "shrink": 2}
    network = build_network("segnet", family_config(Candidate(family="segnet", **options)), 3, 2, 0).train()
    said = network(torch.zeros(2, 3, 128, 128))
    assert [level.shape[-1] for level in said] == [128, 32, 16, 8, 4, 2]


def test_only_what_tiles_can_be_cut_for_is_taken():
    with pytest.raises(ConfigError, match="shrink"):
        unet(shrink=3)


def test_through_the_segmenter_and_exported(tmp_path: Path):
    """Odd sizes, tiles and graphs: the same classes as the network gives the whole, padded image."""
    from segpipe.release.export.bundle_export import export_graph

    about = spec("unet", 3, 3).model_copy(update={"stride": 64, "options": {"shrink": 2}})
    trained = Segmenter(about, TorchEngine(unet(shrink=2)))
    images = [np.random.default_rng(0).random(size, np.float32) for size in ((75, 133, 3), (201, 160, 3))]
    export_graph(trained, tmp_path / "model.onnx")
    for engine in ("onnxruntime", "openvino"):
        graph = Segmenter(about, GRAPH_ENGINES[engine](tmp_path / "model.onnx", 1))
        same = [(graph.predict(image).class_ids == trained.predict(image).class_ids).ravel() for image in images]
        assert np.concatenate(same).mean() >= 0.999, engine
    tiled = trained.but(tile=128, overlap=64)
    assert tiled.predict(images[1]).class_ids.shape == (201, 160)

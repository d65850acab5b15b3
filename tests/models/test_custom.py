"""A user's network: its factory is found and called with its keys, and each mistake is reported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from segpipe.config import Candidate, parse_params
from segpipe.errors import ConfigError
from segpipe.inference.engines.engine import TorchEngine
from segpipe.inference.segmenter import Segmenter
from segpipe.models.registry import build_network, family_config


def build(**options: object) -> torch.nn.Module:
    candidate = Candidate(**options)
    return build_network(candidate.family, family_config(candidate), 3, 4, 0)


def test_the_family_may_be_omitted_and_other_keys_reach_the_factory():
    params = parse_params("candidates: {mine: {factory: 'tests.worlds.custom_networks:build', width: 8}}")
    assert params.candidate("mine").family == "custom"
    network = build(factory="tests.worlds.custom_networks:build", width=8)
    assert network[0].out_channels == 8 and network(torch.zeros(1, 3, 32, 64)).shape == (1, 4, 32, 64)
    with pytest.raises(ConfigError, match="family"):
        parse_params("candidates: {mine: {width: 8}}")


def test_a_module_in_the_workspace_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = "from torch import nn\ndef make(c, k):\n    return nn.Conv2d(c, k, 1)\n"
    (tmp_path / "nets_of_mine.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    assert isinstance(build(factory="nets_of_mine:make"), torch.nn.Conv2d)
    (tmp_path / "needs_more.py").write_text("import a_library_that_is_not_there\n")
    with pytest.raises(ModuleNotFoundError, match="a_library_that_is_not_there"):
        build(factory="needs_more:make")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factory": "nowhere.at_all:build"}, r"no module `nowhere.at_all`.*put nowhere/at_all.py into the workspace"),
        ({"factory": "tests.worlds.custom_networks:built"}, "has no `built`"),
        ({"factory": "tests.worlds.custom_networks:NO_FUNCTION"}, "cannot be called"),
        ({"factory": "tests.worlds.custom_networks:no_network"}, r"does not return a network \(found list"),
        (
            {"factory": "tests.worlds.custom_networks:build", "depth": 3},
            r"cannot be called: .*depth.*build\(3, 4, depth=3\)",
        ),
        (
            {"factory": "tests.worlds.custom_networks:build_small"},
            r"does not return logits of the image's size \(found \(1, 4, 32, 48\)",
        ),
        ({"factory": "tests.worlds.custom_networks"}, "`factory` is wrong"),
        ({"factory": "tests.worlds.custom_networks:build", "encoder_weights": "auto"}, "`encoder_weights` is wrong"),
    ],
)
def test_mistakes_are_reported(options: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        build(**options)


def test_the_seed_determines_the_weights_of_a_factory():
    first, same = (
        build(factory="tests.worlds.custom_networks:build"),
        build(factory="tests.worlds.custom_networks:build"),
    )
    assert torch.equal(first[0].weight, same[0].weight)


def test_a_network_without_a_graph_is_named_at_export(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    from segpipe.inference.engines.graph_export import export_graph
    from tests.models.test_contract import spec

    network = build(factory="tests.worlds.custom_networks:build_without_graph")
    with pytest.raises(ConfigError, match=r"x: the network cannot be exported to ONNX: .*fft.*use other layers"):
        export_graph(Segmenter(spec("custom", 3, 4), TorchEngine(network)), tmp_path / "model.onnx")

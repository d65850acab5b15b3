"""Tests that all families of 2D networks share. A new entry in FAMILIES is covered by them.

Networks for volumes, detectors and classical families have tests of the same names in files of their own.
`python benchmarks/family_table.py` runs all of them and prints a table of families and properties.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from segpipe.config import Candidate
from segpipe.errors import ConfigError
from segpipe.inference.engines.engine import GRAPH_ENGINES, TorchEngine
from segpipe.inference.preprocess import Normalisation
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.models.registry import FAMILIES, build_network, family_config, get_family
from segpipe.samples import ClassTable, Sample
from segpipe.training.tasks import pixelwise_objective
from tests.worlds.readers import MemoryReader
from tests.worlds.released_models import inherited_channels, warm_started_network
from tests.worlds.served_families import shares_of_golden_pixels

ENCODER = "mobilenetv3_small_050"  # the smallest one, because the tests are about the family
OPTIONS: dict[str, dict[str, Any]] = {
    "unet_vgg16": {"encoder_weights": "none"},
    "unet_2015": {"width": 8},
    "fcn8s": {"encoder_weights": "none", "width": 64},
    "fcn_resnet50": {"encoder_weights": "none"},
    "segnet": {"encoder_weights": "none", "encoder": "vgg11_bn"},
    "lraspp_mobilenetv3": {"encoder_weights": "none"},
    "custom": {"factory": "tests.worlds.custom_networks:build"},
}
HEAVY = {"unet_vgg16", "fcn8s", "fcn_resnet50", "segnet"}
NAMES = [name for name, f in FAMILIES.items() if f.kind == "network" and f.dims == 2]
EDGE = {"pan": 128, "deeplabv3": 128, "lraspp_mobilenetv3": 128}
"""Edge length of a training crop in pixels, for networks that need more than 64."""
OVERFIT_EDGE = EDGE | {"unet_vgg16": 32}
"""Edge length of the images for overfitting; 32 where that takes less time, although it takes more steps."""


def marked(names: list[str], slow: set[str]) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow if name in slow else ()) for name in names]


each_family = pytest.mark.parametrize("name", marked(NAMES, HEAVY))
each_family_slowly = pytest.mark.parametrize("name", marked(NAMES, set(NAMES)))


def build(name: str, channels: int = 3, classes: int = 3, seed: int = 0) -> torch.nn.Module:
    options = OPTIONS.get(name, {"encoder": ENCODER, "encoder_weights": "none"})
    return build_network(name, family_config(Candidate(family=name, **options)), channels, classes, seed)


@functools.cache
def shared_network(name: str) -> torch.nn.Module:
    """The network of seed 0, 3 channels and 3 classes. Tests must not change it."""
    return build(name).eval()


pytestmark = pytest.mark.usefixtures("one_thread")


def spec(name: str, channels: int, classes: int) -> SegmenterSpec:
    plain = Normalisation(low=(0,) * channels, high=(1,) * channels, mean=(0,) * channels, std=(1,) * channels)
    table = ClassTable.from_names([f"c{i}" for i in range(classes)])
    return SegmenterSpec(candidate="x", family=name, classes=table, normalisation=plain, stride=get_family(name).stride)


@pytest.mark.parametrize("name", FAMILIES)
def test_settings(name):
    """Defaults are valid, and a mistyped key is reported."""
    required = {"factory": "a:b"} if name == "custom" else {}
    assert family_config(Candidate(family=name, **required)) == get_family(name).config(**required)
    assert get_family(name).summary.endswith((".", ").")) and get_family(name).paper
    if name != "custom":  # whose other keys are passed to the factory
        with pytest.raises(ConfigError, match="unknown key `encodre`"):
            family_config(Candidate(family=name, encodre="resnet18"))


@each_family
@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (5, 12)])
def test_any_channels_classes_and_sizes(name, channels, classes):
    """The segmenter takes odd sizes, and gradients reach every parameter."""
    network = build(name, channels, classes)
    image = np.random.default_rng(0).random((45, 71, channels), np.float32)
    prediction = Segmenter(spec(name, channels, classes), TorchEngine(network)).predict(image, probabilities=True)
    assert prediction.class_ids.shape == (45, 71) and prediction.class_ids.max() < classes
    assert prediction.probabilities is not None
    np.testing.assert_allclose(prediction.probabilities.sum(0), 1, atol=1e-5)
    edge = EDGE.get(name, 64)
    batch = torch.randn(2, channels, edge, edge, generator=torch.Generator().manual_seed(0))
    outputs = network.train()(batch)
    logits, *levels = outputs if isinstance(outputs, tuple) else (outputs,)
    assert logits.shape == (2, classes, edge, edge) and logits.dtype == torch.float32
    assert [level.shape for level in levels] == [(2, classes, edge >> n, edge >> n) for n, _ in enumerate(levels, 1)]
    torch.stack([level.square().mean() for level in (logits, *levels)]).sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []


@each_family
def test_initial_weights(name):
    """They depend on the seed alone, and building leaves the global random state unchanged."""
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    same, other = build(name).state_dict(), build(name, seed=1).state_dict()
    assert torch.equal(before, torch.random.get_rng_state())
    shared = shared_network(name).state_dict()
    assert all(torch.equal(shared[key], same[key]) for key in shared)
    assert any(not torch.equal(shared[key], other[key]) for key in shared)


@each_family
def test_saved_weights(name, tmp_path):
    """Weights are saved as safetensors and loaded into a network of another seed."""
    save_file(shared_network(name).state_dict(), tmp_path / "w.safetensors")
    other = build(name, seed=9).eval()
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    x = torch.randn(1, 3, 128, 128)
    with torch.inference_mode():
        assert torch.equal(shared_network(name)(x), other(x))


@each_family
def test_warm_start(name, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Training continues from a release: each class that it had is predicted as before, whatever its class id is now."""
    monkeypatch.chdir(tmp_path)
    options = OPTIONS.get(name, {"encoder": ENCODER, "encoder_weights": "none"})
    network = warm_started_network(shared_network(name), name, options, 3)
    x = torch.randn(1, 3, 128, 128)
    with torch.inference_mode():
        torch.testing.assert_close(inherited_channels(network(x)), shared_network(name)(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", marked([name for name in NAMES if name != "custom"], HEAVY))
def test_frozen_encoder(name):
    """`network.encoder` is the part that pretrained weights fill."""
    network = shared_network(name)
    inside = sum(p.numel() for p in network.get_submodule("encoder").parameters())
    assert 0 < inside < sum(p.numel() for p in network.parameters())


def drawings(edge: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Four noisy images of rectangles, (4, 3, E, E), and their labels, (4, E, E)."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.zeros(4, 64, 64, dtype=torch.long)
    for index in range(4):
        labels[index, 8 * index : 8 * index + 24, 8:48] = 1
        labels[index, 40:, 8 * index : 8 * index + 24] = 2
    labels = torch.nn.functional.interpolate(labels[:, None].float(), edge, mode="nearest")[:, 0].long()
    images = torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    return images + 0.2 * torch.randn(images.shape, generator=generator), labels


def dice(network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Mean Dice of the three classes over all images, in evaluation mode."""
    with torch.inference_mode():
        predicted = network.eval()(images).argmax(1)
    scores = [
        2 * ((predicted == k) & (labels == k)).sum() / ((predicted == k).sum() + (labels == k).sum()).clamp_min(1)
        for k in range(3)
    ]
    return float(torch.stack(scores).mean())


@functools.cache
def overfitted(name: str) -> tuple[torch.nn.Module, float]:
    """A network that was trained on four images over and over, and its Dice on them."""
    images, labels = drawings(OVERFIT_EDGE.get(name, 64))
    network, score = build(name), 0.0
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    torch.manual_seed(0)
    for step in range(1, 301):
        optimizer.zero_grad()
        pixelwise_objective(torch.nn.CrossEntropyLoss())(network.train(), (images, labels), images.device).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        if step % 10 == 0 and (score := dice(network, images, labels)) > 0.97:
            break
    return network.eval(), score


@each_family_slowly
def test_overfits_four_images(name):
    assert overfitted(name)[1] > 0.95


@each_family_slowly
def test_export(name, tmp_path: Path):
    """The graph predicts the trained network's class for at least 99.9 % of pixels, at sizes that it was not traced with."""
    from segpipe.inference.engines.graph_export import export_graph

    model_spec = spec(name, 3, 3)
    trained = Segmenter(model_spec, TorchEngine(overfitted(name)[0]))
    export_graph(trained, tmp_path / "model.onnx")
    images = [image.permute(1, 2, 0).numpy()[:59, :] for image in drawings(128)[0]]
    images.append(np.random.default_rng(0).random((201, 160, 3), np.float32))
    for engine in ("onnxruntime", "openvino"):
        graph = Segmenter(model_spec, GRAPH_ENGINES[engine](tmp_path / "model.onnx", 1))
        same = [(graph.predict(i).class_ids == trained.predict(i).class_ids).ravel() for i in images]
        assert np.concatenate(same).mean() >= 0.999, engine


@each_family_slowly
def test_served(name, tmp_path: Path):
    """The app of the Bento answers uploads with the trained network's classes."""
    images, labels = drawings(OVERFIT_EDGE.get(name, 64))
    samples = [
        Sample(str(i), a.permute(1, 2, 0).numpy(), b.numpy().astype(np.uint8))
        for i, (a, b) in enumerate(zip(images, labels, strict=True))
    ]
    trained = Segmenter(spec(name, 3, 3), TorchEngine(overfitted(name)[0]))
    golden, agreement = shares_of_golden_pixels(trained, MemoryReader(samples), tmp_path)
    assert golden == 1 and agreement >= 0.999

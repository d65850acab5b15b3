"""Tests that all networks for volumes share, as tests/models/test_contract.py has them for images.

A new entry in FAMILIES with dims=3 is covered by them.
"""

import functools

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from segpipe.config import Candidate
from segpipe.errors import ConfigError
from segpipe.inference.engines.engine import OnnxEngine, OpenVinoEngine, TorchEngine
from segpipe.inference.engines.graph_export import export_graph
from segpipe.inference.preprocess import Normalisation
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.models.registry import FAMILIES, build_network, family_config
from segpipe.models.volumetric.unet3d import Unet3dConfig
from segpipe.samples import ClassTable, Sample
from segpipe.training.losses import SegmentationLoss
from tests.worlds.readers import MemoryReader
from tests.worlds.released_models import inherited_channels, warm_started_network
from tests.worlds.served_families import shares_of_golden_pixels
from tests.worlds.tiny_training import make_recipe

NETWORKS = [name for name, f in FAMILIES.items() if f.dims == 3 and f.name != "tiny3d"]
PATCH = (16, 16, 16)
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]  # MONAI takes seconds to load


def build(name, channels=1, classes=3, seed=0, **options):
    return build_network(name, family_config(Candidate(family=name, channels=8, **options)), channels, classes, seed)


def make_segmenter(name, channels, classes):
    normalisation = Normalisation(low=(0,) * channels, high=(1,) * channels, mean=(0,) * channels, std=(1,) * channels)
    spec = SegmenterSpec(
        candidate="x",
        family=name,
        classes=ClassTable.from_names([f"c{i}" for i in range(classes)]),
        normalisation=normalisation,
        dims=3,
        patch3d=PATCH,
    )
    return Segmenter(spec, TorchEngine(build(name, channels, classes)))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (3, 12), (5, 3)])
def test_any_channels_classes_and_sizes(name, channels, classes):
    """The segmenter takes odd sizes, and gradients reach every parameter."""
    volume = np.random.default_rng(0).random((9, 31, 17, channels), np.float32)
    segmenter = make_segmenter(name, channels, classes)
    prediction = segmenter.predict(volume, probabilities=True)
    assert prediction.class_ids.shape == (9, 31, 17) and prediction.class_ids.max() < classes
    np.testing.assert_allclose(prediction.probabilities.sum(0), 1, atol=1e-5)
    network = segmenter.engine.module.train()
    logits = network(torch.randn(2, channels, *PATCH))
    assert logits.shape == (2, classes, *PATCH)
    logits.square().mean().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []


@pytest.mark.parametrize("name", NETWORKS)
def test_initial_weights(name):
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    same, other = build(name, seed=5).state_dict(), build(name, seed=6).state_dict()
    assert torch.equal(before, torch.random.get_rng_state()), "building leaves the global random state unchanged"
    first = build(name, seed=5).state_dict()
    assert all(torch.equal(first[k], same[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


@pytest.mark.parametrize("name", NETWORKS)
def test_saved_weights(name, tmp_path):
    network = build(name).eval()
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    other = build(name, seed=9).eval()
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    x = torch.randn(1, 1, *PATCH)
    with torch.inference_mode():
        assert torch.equal(network(x), other(x))


@pytest.mark.parametrize("name", NETWORKS)
def test_warm_start(name, tmp_path, monkeypatch):
    """Training continues from a release: each class that it had is predicted as before, whatever its class id is now."""
    monkeypatch.chdir(tmp_path)
    released, x = build(name).eval(), torch.randn(1, 1, *PATCH)
    network = warm_started_network(released, name, {"channels": 8}, 1)
    with torch.inference_mode():
        if name == "vnet":  # its last layer combines the scores of all classes, including the new one
            wide, narrow = (n.last.conv2.weight[None] for n in (network, released))
            rows = inherited_channels(wide).transpose(1, 2)
            assert torch.equal(inherited_channels(rows).transpose(1, 2), narrow)
        else:
            torch.testing.assert_close(inherited_channels(network(x)), released(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_frozen_encoder(name):
    """There is none: networks for volumes start from random weights or from a release."""
    assert not hasattr(build(name), "encoder")


@functools.cache
def overfitted(name) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    """A network that was trained on four volumes over and over, the volumes, (4, 1, *PATCH), and their labels."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.zeros(4, *PATCH, dtype=torch.long)
    for index in range(4):
        labels[index, 1:8, 3:14, 2 + index : 12] = 1
        labels[index, 10:15, 4 + index : 14, 4:9] = 2
    volumes = torch.stack([(labels == 1) * 1.0 + (labels == 2) * 2.0], 1)
    volumes += 0.3 * torch.randn(volumes.shape, generator=generator)
    network = build(name).train()
    recipe = make_recipe(class_weights=[1.0, 1.0, 1.0])
    loss = SegmentationLoss(recipe.class_weights, recipe.loss)
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss(network(volumes), labels).backward()
        optimizer.step()
    return network.eval(), volumes, labels


@pytest.mark.parametrize("name", NETWORKS)
def test_overfits_four_images(name):
    network, volumes, labels = overfitted(name)
    with torch.inference_mode():
        predicted_ids = network(volumes).argmax(1)
    for class_id in (1, 2):
        predicted, true = predicted_ids == class_id, labels == class_id
        assert 2 * (predicted & true).sum() / (predicted.sum() + true.sum()) > 0.95


@pytest.mark.parametrize("name", NETWORKS)
def test_export(name, tmp_path):
    trained = make_segmenter(name, 1, 3)
    volume = np.random.default_rng(1).random((20, 30, 18, 1), np.float32)
    export_graph(trained, tmp_path / "model.onnx")
    expected = trained.predict(volume).class_ids
    for engine in (
        OnnxEngine(tmp_path / "model.onnx", threads=1),
        OpenVinoEngine(tmp_path / "model.onnx", "o", "f32", 1),
    ):
        assert (Segmenter(trained.spec, engine).predict(volume).class_ids == expected).mean() >= 0.999


@pytest.mark.parametrize("name", NETWORKS)
def test_served(name, tmp_path):
    """The app of the Bento answers uploads with the trained network's classes."""
    network, volumes, labels = overfitted(name)
    samples = [
        Sample(str(i), volume[0, ..., None].numpy(), label.numpy().astype(np.uint8))
        for i, (volume, label) in enumerate(zip(volumes, labels, strict=True))
    ]
    trained = Segmenter(make_segmenter(name, 1, 3).spec, TorchEngine(network))
    golden, agreement = shares_of_golden_pixels(trained, MemoryReader(samples), tmp_path)
    assert golden == 1 and agreement >= 0.999


def test_first_levels_neither_halve_nor_convolve_along_thick_slices():
    """Neighbouring slices have no influence before the level at which slices are combined."""
    network = build_network("unet3d", Unet3dConfig(channels=8, depth=3, whole_levels=(2, 0, 0)), 1, 2, 0).eval()
    kernels = [
        m.kernel_size for m in network.modules() if isinstance(m, torch.nn.Conv3d) and m.kernel_size != (1, 1, 1)
    ]
    assert {k[0] for k in kernels[:4]} == {1} and (3, 3, 3) in kernels
    with torch.inference_mode():
        assert network(torch.zeros(1, 1, 5, 8, 8)).shape == (1, 2, 5, 8, 8), "any number of slices"


def test_invalid_settings_are_refused():
    with pytest.raises(ConfigError, match="multiple of 8"):
        family_config(Candidate(family="segresnet", channels=12))
    with pytest.raises(ConfigError, match="depth"):
        family_config(Candidate(family="unet3d", depth=1))

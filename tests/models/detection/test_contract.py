"""Tests that all detectors share, as tests/models/test_contract.py has them for networks that predict a class for each pixel.

A detector has no ONNX graph: benchmarks/family_table.py says so in place of a test of export.
"""

from __future__ import annotations

import functools
import operator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from segpipe.inference.postprocess import Postprocess
from segpipe.inference.preprocess import Normalisation
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.inference.trained_engine import torch_engine
from segpipe.metrics import micro
from segpipe.metrics.instances import InstanceMasks, count_instances
from segpipe.models.detection.mask_rcnn_config import MaskRcnnConfig
from segpipe.models.registry import FAMILIES, build_network
from segpipe.samples import ClassTable
from segpipe.training.sampling.detection import detection_loss, target_of
from tests.worlds.detectors import SMALL, discs, overfit
from tests.worlds.readers import MemoryReader
from tests.worlds.released_models import inherited_channels, warm_started_network
from tests.worlds.served_families import shares_of_golden_pixels

NAMES = [name for name, f in FAMILIES.items() if f.kind == "detector"]
each_family = pytest.mark.parametrize("name", NAMES)
pytestmark = pytest.mark.usefixtures("one_thread")


def build(name: str, channels: int = 3, classes: int = 3, seed: int = 0) -> torch.nn.Module:
    return build_network(name, MaskRcnnConfig.model_validate(SMALL), channels, classes, seed)


def make_segmenter(name: str, network: torch.nn.Module, channels: int, classes: int, min_score: float) -> Segmenter:
    normalisation = Normalisation(
        low=(0,) * channels, high=(255,) * channels, mean=(0.4,) * channels, std=(0.2,) * channels
    )
    spec = SegmenterSpec(
        candidate="x",
        family=name,
        options=SMALL,
        task="instance",
        normalisation=normalisation,
        classes=ClassTable.from_names([f"c{i}" for i in range(classes)]),
        postprocess=Postprocess(method="detections", min_score=min_score),
    )
    return Segmenter(spec, torch_engine("instance", network))


@each_family
@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (3, 12), (5, 3)])
def test_any_channels_classes_and_sizes(name, channels, classes):
    """Gradients reach every parameter, also if an image has no instances, and the segmenter takes odd sizes."""
    network = build(name, channels, classes)
    sample = discs(0, 64)
    target = target_of(sample.labels.clip(0, classes - 1), sample.instances)
    empty_target = target_of(np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint16))
    torch.manual_seed(0)
    batch = torch.randn(2, channels, 64, 64), [target, empty_target]
    loss = detection_loss(network.train(), batch, torch.device("cpu"))
    loss.backward()
    assert loss.dtype == torch.float32
    assert [n for n, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []
    with torch.no_grad():  # with random weights, nothing may be detected
        network.roi_heads.mask_predictor.mask_fcn_logits.bias += 1.0
        network.roi_heads.box_predictor.cls_score.bias[classes - 1] += 5.0
    image = np.random.default_rng(0).integers(0, 256, (45, 71, channels), np.uint8)
    prediction = make_segmenter(name, network, channels, classes, 0.0).predict(image, probabilities=True)
    assert prediction.class_ids.shape == (45, 71) == prediction.instances.ids.shape and len(prediction.instances) > 0
    assert prediction.class_ids.max() == classes - 1
    np.testing.assert_array_equal(prediction.instances.class_map(), prediction.class_ids)
    np.testing.assert_allclose(prediction.probabilities.sum(0), 1, atol=1e-5)


@each_family
def test_initial_weights(name):
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, same, other = (build(name, seed=seed).state_dict() for seed in (5, 5, 6))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[k], same[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


@each_family
def test_saved_weights(name, tmp_path: Path):
    saved, loaded = build(name, seed=5).eval(), build(name, seed=6).eval()
    save_file(saved.state_dict(), tmp_path / "w.safetensors")
    loaded.load_state_dict(load_file(tmp_path / "w.safetensors"))
    x = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        (a,), (b,) = saved(x), loaded(x)
    assert all(torch.equal(a[k], b[k]) for k in a)


@each_family
def test_warm_start(name, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Training continues from a release: for each class that it had, score, box and mask are predicted as before."""
    monkeypatch.chdir(tmp_path)
    released_network = build(name)
    current = warm_started_network(released_network, name, SMALL, 3).state_dict()
    released = released_network.state_dict()
    for key, expected in released.items():
        if current[key].shape == expected.shape:
            inherited = current[key]
        else:
            by_class = current[key].unflatten(0, (4, -1))[None]
            inherited = inherited_channels(by_class)[0].flatten(0, 1)
        assert torch.equal(inherited, expected), key
    assert current["roi_heads.box_predictor.bbox_pred.weight"].shape[0] == 16


@each_family
def test_frozen_encoder(name):
    from segpipe.training.optim.freezing import encoder_of

    network = build(name)
    inside = sum(p.numel() for p in encoder_of(network).parameters())
    assert 0 < inside < sum(p.numel() for p in network.parameters())


@functools.cache
def overfitted(name: str) -> tuple[Segmenter, MemoryReader]:
    """A detector that was trained on four images of discs over and over, and the images."""
    reader = MemoryReader([discs(seed, 64) for seed in (1, 2, 3, 4)])
    return make_segmenter(name, overfit(build(name), reader, edge=64, steps=180), 3, 3, 0.5), reader


@each_family
@pytest.mark.slow
def test_overfits_four_images(name):
    """Both the class ids and the instances are right."""
    segmenter, reader = overfitted(name)
    predictions = [segmenter.predict(sample.image) for sample in reader.samples]
    predicted = np.stack([prediction.class_ids for prediction in predictions])
    true = np.stack([sample.labels for sample in reader.samples])
    dice = [2 * np.sum((predicted == k) & (true == k)) / (np.sum(predicted == k) + np.sum(true == k)) for k in range(3)]
    assert np.mean(dice) > 0.95
    scores = [
        count_instances(
            InstanceMasks.from_instances(sample.true_instances()), InstanceMasks.from_instances(prediction.instances), 3
        )
        for sample, prediction in zip(reader.samples, predictions, strict=True)
    ]
    total = functools.reduce(operator.add, scores)
    assert float(micro("dice", total.tallies[0])) > 0.9, "F1 of instances"


@each_family
@pytest.mark.slow
def test_served(name, tmp_path: Path):
    """The app of the Bento serves a bundle of weights and answers uploads with the trained network's classes."""
    segmenter, reader = overfitted(name)
    golden, agreement = shares_of_golden_pixels(segmenter, reader, tmp_path)
    assert golden == 1 and agreement >= 0.999

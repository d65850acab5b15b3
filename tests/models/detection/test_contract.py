"""What every detector must do, as `test_contract.py` has it for networks that give each pixel a class."""

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
from tests.worlds.released_models import inherited_channels, warm_started_network
from tests.worlds.served_families import shares_of_golden_pixels
from tests.worlds.tiny_training import MemoryReader

NAMES = [name for name, f in FAMILIES.items() if f.kind == "detector"]
each_family = pytest.mark.parametrize("name", NAMES)
pytestmark = pytest.mark.usefixtures("one_thread")


def build(name: str, channels: int = 3, classes: int = 3, seed: int = 0) -> torch.nn.Module:
    return build_network(name, MaskRcnnConfig.model_validate(SMALL), channels, classes, seed)


def segmenter(name: str, network: torch.nn.Module, channels: int, classes: int, least: float) -> Segmenter:
    plain = Normalisation(low=(0,) * channels, high=(255,) * channels, mean=(0.4,) * channels, std=(0.2,) * channels)
    spec = SegmenterSpec(
        candidate="x",
        family=name,
        options=SMALL,
        task="instance",
        normalisation=plain,
        classes=ClassTable.from_names([f"c{i}" for i in range(classes)]),
        postprocess=Postprocess(method="detections", min_score=least),
    )
    return Segmenter(spec, torch_engine("instance", network))


@each_family
@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (3, 12), (5, 3)])
def test_any_channels_classes_and_sizes(name, channels, classes):
    """Odd sizes through the segmenter, then one step back through every parameter, with an image that has no objects."""
    network = build(name, channels, classes)
    sample = discs(0, 64)
    target = target_of(sample.labels.clip(0, classes - 1), sample.instances)
    nothing = target_of(np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint16))
    torch.manual_seed(0)
    batch = torch.randn(2, channels, 64, 64), [target, nothing]
    loss = detection_loss(network.train(), batch, torch.device("cpu"))
    loss.backward()
    assert loss.dtype == torch.float32
    assert [n for n, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []
    with torch.no_grad():  # random weights may find nothing
        network.roi_heads.mask_predictor.mask_fcn_logits.bias += 1.0
        network.roi_heads.box_predictor.cls_score.bias[classes - 1] += 5.0
    image = np.random.default_rng(0).integers(0, 256, (45, 71, channels), np.uint8)
    found = segmenter(name, network, channels, classes, 0.0).predict(image, probabilities=True)
    assert found.class_ids.shape == (45, 71) == found.instances.ids.shape and len(found.instances) > 0
    assert found.class_ids.max() == classes - 1
    np.testing.assert_array_equal(found.instances.class_map(), found.class_ids)
    np.testing.assert_allclose(found.probabilities.sum(0), 1, atol=1e-5)


@each_family
def test_first_weights(name):
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one, same, other = (build(name, seed=seed).state_dict() for seed in (5, 5, 6))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert any(not torch.equal(one[k], other[k]) for k in one)


@each_family
def test_a_file(name, tmp_path: Path):
    one, other = build(name, seed=5).eval(), build(name, seed=6).eval()
    save_file(one.state_dict(), tmp_path / "w.safetensors")
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    x = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        (a,), (b,) = one(x), other(x)
    assert all(torch.equal(a[k], b[k]) for k in a)


@each_family
def test_a_release(name, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Training goes on from a release: of each class that was there, score, box and mask are told as they were."""
    monkeypatch.chdir(tmp_path)
    old = build(name)
    mine, theirs = warm_started_network(old, name, SMALL, 3).state_dict(), old.state_dict()
    for key in theirs:
        own = mine[key] if mine[key].shape == theirs[key].shape else mine[key].unflatten(0, (4, -1))[None]
        kept = own if own is mine[key] else inherited_channels(own)[0].flatten(0, 1)
        assert torch.equal(kept, theirs[key]), key
    assert mine["roi_heads.box_predictor.bbox_pred.weight"].shape[0] == 16


@each_family
def test_an_encoder_to_freeze(name):
    from segpipe.training.optim.freezing import encoder_of

    network = build(name)
    inside = sum(p.numel() for p in encoder_of(network).parameters())
    assert 0 < inside < sum(p.numel() for p in network.parameters())


@functools.cache
def taught(name: str) -> tuple[Segmenter, MemoryReader]:
    """A detector that has seen four images of discs over and over."""
    reader = MemoryReader([discs(seed, 64) for seed in (1, 2, 3, 4)])
    return segmenter(name, overfit(build(name), reader, edge=64, steps=260), 3, 3, 0.5), reader


@each_family
@pytest.mark.slow
def test_four_images_by_heart(name):
    """Objects, painted as classes and one by one."""
    trained, reader = taught(name)
    answers = [trained.predict(sample.image) for sample in reader.samples]
    found = np.stack([answer.class_ids for answer in answers])
    true = np.stack([sample.labels for sample in reader.samples])
    dice = [2 * np.sum((found == k) & (true == k)) / (np.sum(found == k) + np.sum(true == k)) for k in range(3)]
    assert np.mean(dice) > 0.95
    scores = [
        count_instances(
            InstanceMasks.from_instances(sample.objects()), InstanceMasks.from_instances(answer.instances), 3
        )
        for sample, answer in zip(reader.samples, answers, strict=True)
    ]
    total = functools.reduce(operator.add, scores)
    assert float(micro("dice", total.tallies[0])) > 0.9, "F1 of objects"


@each_family
def test_export(name):
    pytest.skip("boxes and masks of any number have no ONNX graph here; weights travel, and torch runs them (served)")


@each_family
@pytest.mark.slow
def test_served(name, tmp_path: Path):
    """As a bundle of weights, behind the app of the Bento: uploads are answered with the trained network's classes."""
    trained, reader = taught(name)
    golden, own = shares_of_golden_pixels(trained, reader, tmp_path)
    assert golden == 1 and own >= 0.999

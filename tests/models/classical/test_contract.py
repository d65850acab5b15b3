"""Tests that all classical families share, as tests/models/test_contract.py has them for networks.

Classical models are fitted and evaluated, but never exported. benchmarks/family_table.py lists the properties that do not apply to them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segpipe.config import Candidate
from segpipe.errors import ConfigError
from segpipe.inference.engines.graph_export import export_graph
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.models.registry import FAMILIES, family_config, get_family
from segpipe.samples import ClassTable, Sample
from tests.worlds.colour_patches import colour_patches, patch_normalisation

NAMES = [name for name, f in FAMILIES.items() if f.kind == "classical"]
SMALL = {"kmeans": {"clusters": 14}, "edges": {"spacing": 6}, "spectral": {"superpixels": 60}}
each_family = pytest.mark.parametrize("name", NAMES)


def scene(seed: int, channels: int, classes: int) -> Sample:
    """An image of odd size with patches of 16 x 16 pixels, in a colour for each class."""
    levels = np.stack([np.roll(np.linspace(10, 245, classes), 5 * c) for c in range(channels)], -1)
    whole = colour_patches(seed, levels, noise=3, ignored_rows=0)
    return replace(whole, image=whole.image[:61, :77], labels=whole.labels[:61, :77])


def fit(name: str, channels: int = 3, classes: int = 3, seed: int = 0, count: int = 4) -> Segmenter:
    family, normalisation = get_family(name), patch_normalisation(channels)
    config = family.config.model_validate(SMALL[name])
    samples = [scene(i, channels, classes) for i in range(count)]
    model = family.classical.fit(samples, normalisation.apply, classes, seed, config)
    spec = SegmenterSpec(
        candidate="x",
        family=name,
        classes=ClassTable.from_names([f"c{i}" for i in range(classes)]),
        normalisation=normalisation,
        stride=family.stride,
    )
    return Segmenter(spec, model)


@each_family
@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (3, 12), (5, 3)])
def test_any_channels_classes_and_sizes(name, channels, classes):
    image = scene(9, channels, classes).image[:45, :71]
    prediction = fit(name, channels, classes).predict(image, probabilities=True)
    assert prediction.class_ids.shape == (45, 71) and prediction.class_ids.max() < classes
    np.testing.assert_allclose(prediction.probabilities.sum(0), 1, atol=1e-5)


@each_family
def test_initial_weights(name, tmp_path: Path):
    """A fitted model depends on images and seed alone, and fitting leaves numpy's global random state unchanged."""
    before = np.random.get_state()[1].copy()
    for index in range(2):
        fit(name, seed=7).engine.save(tmp_path / f"{index}.safetensors")
    assert (tmp_path / "0.safetensors").read_bytes() == (tmp_path / "1.safetensors").read_bytes()
    np.testing.assert_array_equal(np.random.get_state()[1], before)


@each_family
def test_saved_weights(name, tmp_path: Path):
    segmenter, image = fit(name), scene(5, 3, 3).image
    segmenter.engine.save(tmp_path / "w.safetensors")
    loaded = Segmenter(segmenter.spec, get_family(name).classical.load(tmp_path / "w.safetensors"))
    np.testing.assert_array_equal(loaded.predict(image).class_ids, segmenter.predict(image).class_ids)


@each_family
def test_overfits_four_images(name):
    segmenter = fit(name)
    samples = [scene(i, 3, 3) for i in range(4)]
    predicted = np.stack([segmenter.predict(sample.image).class_ids for sample in samples])
    true = np.stack([sample.labels for sample in samples])
    dice = [2 * np.sum((predicted == k) & (true == k)) / (np.sum(predicted == k) + np.sum(true == k)) for k in range(3)]
    assert np.mean(dice) > 0.95


@each_family
def test_warm_start(name):
    """A classical family refuses to start from a release."""
    with pytest.raises(ConfigError, match="unknown key `encoder_weights`"):
        family_config(Candidate(family=name, encoder_weights="segmenter@v0.1.0"))


@each_family
def test_export(name, tmp_path: Path):
    """Export refuses a classical model, and its error says what to do."""
    with pytest.raises(ConfigError, match=r"is not a network and has no ONNX graph.*add a network to `candidates:`"):
        export_graph(fit(name), tmp_path / "model.onnx")

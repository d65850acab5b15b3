"""What every classical family must do, as `test_contract.py` has it for networks; they are fitted, judged, and never leave the
pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segpipe.config import Candidate
from segpipe.errors import ConfigError
from segpipe.inference.preprocess import Normalisation
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.models.registry import FAMILIES, family_config, get_family
from segpipe.release.export.bundle_export import export_graph
from segpipe.samples import ClassTable, Sample

NAMES = [name for name, f in FAMILIES.items() if f.kind == "classical"]
SMALL = {"kmeans": {"clusters": 14}, "edges": {"spacing": 6}, "spectral": {"superpixels": 60}}
each_family = pytest.mark.parametrize("name", NAMES)


def plain(channels: int) -> Normalisation:
    return Normalisation(low=(0,) * channels, high=(255,) * channels, mean=(0.4,) * channels, std=(0.3,) * channels)


def scene(seed: int, channels: int, classes: int) -> Sample:
    """Patches of 16 x 16 pixels with a colour for each class, of an odd size."""
    rng = np.random.default_rng(seed)
    labels = np.kron(rng.integers(0, classes, (4, 5)), np.ones((16, 16), np.int64))[:61, :77].astype(np.uint8)
    levels = np.stack([np.roll(np.linspace(10, 245, classes), 5 * c) for c in range(channels)], -1)
    image = np.clip(levels[labels] + rng.normal(0, 3, (*labels.shape, channels)), 0, 255).astype(np.uint8)
    return Sample(f"s{seed}", image, labels)


def fit(name: str, channels: int = 3, classes: int = 3, seed: int = 0, count: int = 4) -> Segmenter:
    of, normalisation = get_family(name), plain(channels)
    config = of.config.model_validate(SMALL[name])
    samples = [scene(i, channels, classes) for i in range(count)]
    model = of.classical.fit(samples, normalisation.apply, classes, seed, config)
    spec = SegmenterSpec(
        candidate="x",
        family=name,
        classes=ClassTable.from_names([f"c{i}" for i in range(classes)]),
        normalisation=normalisation,
        stride=of.stride,
    )
    return Segmenter(spec, model)


@each_family
@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (3, 12), (5, 3)])
def test_any_channels_classes_and_sizes(name, channels, classes):
    image = scene(9, channels, classes).image[:45, :71]
    found = fit(name, channels, classes).predict(image, probabilities=True)
    assert found.class_ids.shape == (45, 71) and found.class_ids.max() < classes
    np.testing.assert_allclose(found.probabilities.sum(0), 1, atol=1e-5)


@each_family
def test_first_weights(name, tmp_path: Path):
    """They have none; what is fitted follows from images and seed alone, and leaves numpy's global state as it was."""
    before = np.random.get_state()[1].copy()
    for index in range(2):
        fit(name, seed=7).engine.save(tmp_path / f"{index}.safetensors")
    assert (tmp_path / "0.safetensors").read_bytes() == (tmp_path / "1.safetensors").read_bytes()
    np.testing.assert_array_equal(np.random.get_state()[1], before)


@each_family
def test_a_file(name, tmp_path: Path):
    made, image = fit(name), scene(5, 3, 3).image
    made.engine.save(tmp_path / "w.safetensors")
    loaded = Segmenter(made.spec, get_family(name).classical.load(tmp_path / "w.safetensors"))
    np.testing.assert_array_equal(loaded.predict(image).class_ids, made.predict(image).class_ids)


@each_family
def test_four_images_by_heart(name):
    made = fit(name)
    found, true = ([], [])
    for i in range(4):
        sample = scene(i, 3, 3)
        found.append(made.predict(sample.image).class_ids)
        true.append(sample.labels)
    a, b = np.stack(found), np.stack(true)
    assert np.mean([2 * np.sum((a == k) & (b == k)) / (np.sum(a == k) + np.sum(b == k)) for k in range(3)]) > 0.95


@each_family
def test_an_encoder_to_freeze(name):
    pytest.skip("is fitted, without steps")


@each_family
def test_a_release(name):
    with pytest.raises(ConfigError, match="unknown key `encoder_weights`"):
        family_config(Candidate(family=name, encoder_weights="segmenter@v0.1.0"))
    pytest.skip("is fitted, without steps")


@each_family
def test_export(name, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"no network and has no ONNX graph.*add a network to `candidates:`"):
        export_graph(fit(name), tmp_path / "model.onnx")
    pytest.skip("a baseline is what a network has to beat: it never wins, and is refused here")


@each_family
def test_served(name):
    pytest.skip("a baseline is what a network has to beat: it never wins, and is refused at export")

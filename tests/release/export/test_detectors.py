"""Tests of the export of a detector: the bundle has its weights, and torch runs it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from segpipe.config import ExportParams
from segpipe.inference.segmenter import Segmenter
from segpipe.release.bundle import bundle_sha256, check_bundle, model_sha256, replay_golden
from segpipe.release.export.bundle_export import write_bundle
from segpipe.release.packaging.bento import extra_packages, pin_packages
from tests.worlds.bundles import toy_detector, toy_image, toy_reader, toy_selection


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Segmenter, Path]:
    trained, out = toy_detector(), tmp_path_factory.mktemp("detector") / "bundle"
    write_bundle(trained, "00" * 32, toy_reader(), toy_selection(), ExportParams(golden=2), out)
    return trained, out


def test_a_detector_is_exported_as_weights_and_predicts_the_same(exported: tuple[Segmenter, Path]) -> None:
    trained, bundle = exported
    loaded = Segmenter.from_bundle(bundle)
    assert loaded.spec.engine == loaded.engine.name == "torch" and not (bundle / "model.onnx").exists()
    image = toy_image(5, 70, 90)
    before, after = (s.predict(image).instances for s in (trained, loaded))
    assert before is not None and after is not None and len(before) > 0
    np.testing.assert_array_equal(before.ids, after.ids)
    np.testing.assert_array_equal(before.scores, after.scores)
    assert replay_golden(loaded, bundle).identical
    (trial,) = json.loads((bundle / "engines.json").read_text())
    assert trial["engine"] == "torch" and trial["eligible"] and "has no ONNX graph" in trial["reason"]


def test_the_hash_of_the_model_is_that_of_its_weights(exported: tuple[Segmenter, Path]) -> None:
    _, bundle = exported
    check_bundle(bundle, bundle_sha256(bundle))
    before, weights = model_sha256(bundle), (bundle / "weights.safetensors").read_bytes()
    (bundle / "weights.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    assert model_sha256(bundle) != before
    (bundle / "weights.safetensors").write_bytes(weights)


def test_a_bento_contains_the_packages_of_its_model(exported: tuple[Segmenter, Path]) -> None:
    spec = Segmenter.from_bundle(exported[1]).spec
    assert {"torch", "torchvision", "timm", "scikit-image"} <= set(extra_packages(spec))
    light = spec.model_copy(update={"engine": "openvino", "postprocess": None})
    assert extra_packages(light) == ()
    packages = yaml.safe_load(pin_packages("python: {packages: [numpy]}", extra_packages(spec)))["python"]["packages"]
    assert any(p.startswith("torch==") for p in packages) and len(packages) == 1 + len(extra_packages(spec))

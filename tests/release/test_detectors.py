"""A detector leaves the pipeline with its weights, and runs on torch wherever it goes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from segpipe.config import ExportParams
from segpipe.inference.network import torch_engine
from segpipe.inference.postprocess import Postprocess
from segpipe.inference.preprocess import Normalisation
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.models.rcnn_config import MaskRcnnConfig
from segpipe.models.registry import build_network
from segpipe.release.bento import further_packages, pin_packages
from segpipe.release.bundle import bundle_sha256, check_bundle, model_sha256, replay_golden
from segpipe.release.export import write_bundle
from tests.release.toy import CLASSES, toy_image, toy_reader, toy_selection

SMALL = {
    "encoder": "resnet18",
    "channels": 16,
    "hidden": 16,
    "anchors": [12.0, 24.0],
    "first_stride": 4,
    "detections": 20,
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Segmenter, Path]:
    config = MaskRcnnConfig.model_validate(SMALL | {"encoder_weights": "none"})
    network = build_network("mask_rcnn", config, 3, len(CLASSES), 0).eval()
    with torch.no_grad():  # objects that are there: random weights may find none
        network.roi_heads.mask_predictor.mask_fcn_logits.bias += 1.0
        network.roi_heads.box_predictor.cls_score.bias[1] += 2.0
    spec = SegmenterSpec(
        candidate="unet", family="mask_rcnn", options=SMALL, task="instance", classes=CLASSES,
        normalisation=Normalisation(low=(0,) * 3, high=(255,) * 3, mean=(0.5,) * 3, std=(0.25,) * 3),
        postprocess=Postprocess(method="detections", min_score=0.0),
    )  # fmt: skip
    trained, out = Segmenter(spec, torch_engine("instance", network)), tmp_path_factory.mktemp("detector") / "bundle"
    write_bundle(trained, "00" * 32, toy_reader(), toy_selection(), ExportParams(golden=2), out)
    return trained, out


def test_a_detector_is_exported_as_weights_and_answers_the_same(exported: tuple[Segmenter, Path]) -> None:
    trained, bundle = exported
    loaded = Segmenter.from_bundle(bundle)
    assert loaded.spec.engine == loaded.engine.name == "torch" and not (bundle / "model.onnx").exists()
    image = toy_image(5, 70, 90)
    mine, theirs = (s.predict(image).instances for s in (trained, loaded))
    assert mine is not None and theirs is not None and len(mine) > 0
    np.testing.assert_array_equal(mine.ids, theirs.ids)
    np.testing.assert_array_equal(mine.scores, theirs.scores)
    assert replay_golden(loaded, bundle).identical
    (trial,) = json.loads((bundle / "engines.json").read_text())
    assert trial["engine"] == "torch" and trial["eligible"] and "no ONNX graph" in trial["reason"]


def test_the_hash_of_the_model_is_that_of_its_weights(exported: tuple[Segmenter, Path]) -> None:
    _, bundle = exported
    check_bundle(bundle, bundle_sha256(bundle))
    before, weights = model_sha256(bundle), (bundle / "weights.safetensors").read_bytes()
    (bundle / "weights.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    assert model_sha256(bundle) != before
    (bundle / "weights.safetensors").write_bytes(weights)


def test_a_bento_carries_what_its_model_needs(exported: tuple[Segmenter, Path]) -> None:
    spec = Segmenter.from_bundle(exported[1]).spec
    assert {"torch", "torchvision", "timm", "scikit-image"} <= set(further_packages(spec))
    light = spec.model_copy(update={"engine": "openvino", "postprocess": None})
    assert further_packages(light) == ()
    packages = yaml.safe_load(pin_packages("python: {packages: [numpy]}", further_packages(spec)))["python"]["packages"]
    assert any(p.startswith("torch==") for p in packages) and len(packages) == 1 + len(further_packages(spec))

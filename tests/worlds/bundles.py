"""A small but real model for tests: a convolutional network, a detector, a reader of test images, a selection, a bundle."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from segpipe.config import ExportParams
from segpipe.drift.reference import REFERENCE_FILE, Reference
from segpipe.gates.selection import Selection
from segpipe.inference.engines.engine import TorchEngine
from segpipe.inference.preprocess import Normalisation
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.samples import ClassTable, Sample
from tests.worlds.readers import MemoryReader

CLASSES = ClassTable.from_names(["background", "cell", "nucleus"], [0, 128, 255])


def toy_network(seed: int, channels: int = 3, n_classes: int = 3):
    """Build two strided convolutions with upsampling: sizes must be multiples of 4, as a real encoder requires multiples of 32."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(channels, 8, 3, 2, 1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, 2, 1),
        nn.ReLU(),
        nn.Upsample(scale_factor=4, mode="bilinear"),
        nn.Conv2d(16, n_classes, 3, 1, 1),
    ).eval()
    with torch.no_grad():  # centre the logits on an image like those of the tests, so that every class wins somewhere
        x = torch.from_numpy(toy_image(0, 64, 64, channels).transpose(2, 0, 1)[None].astype(np.float32) / 255 - 0.5)
        network[-1].bias -= network(x).mean((0, 2, 3))
    return network


def toy_segmenter(seed: int = 0, channels: int = 3) -> Segmenter:
    std = (1.0,) * channels
    spec = SegmenterSpec(
        candidate="unet",
        family="unet",
        options={"encoder": "tiny"},
        classes=CLASSES,
        stride=4,
        tile=96,
        overlap=32,
        normalisation=Normalisation(low=(0.0,) * channels, high=(255.0,) * channels, mean=(0.5,) * channels, std=std),
        lineage={"plan_hash": "c0ffee"},
    )
    return Segmenter(spec, TorchEngine(toy_network(seed, channels)))


def toy_detector() -> Segmenter:
    """Build a small Mask R-CNN whose biases make it detect something: plain random weights may detect nothing."""
    import torch

    from segpipe.inference.postprocess import Postprocess
    from segpipe.inference.trained_engine import torch_engine
    from segpipe.models.detection.mask_rcnn_config import MaskRcnnConfig
    from segpipe.models.registry import build_network

    small = {
        "encoder": "resnet18",
        "channels": 16,
        "hidden": 16,
        "anchors": [12.0, 24.0],
        "first_stride": 4,
        "detections": 20,
    }
    config = MaskRcnnConfig.model_validate(small | {"encoder_weights": "none"})
    network = build_network("mask_rcnn", config, 3, len(CLASSES), 0).eval()
    with torch.no_grad():
        network.roi_heads.mask_predictor.mask_fcn_logits.bias += 1.0
        network.roi_heads.box_predictor.cls_score.bias[1] += 2.0
    spec = SegmenterSpec(
        candidate="unet",
        family="mask_rcnn",
        options=small,
        task="instance",
        classes=CLASSES,
        normalisation=Normalisation(low=(0,) * 3, high=(255,) * 3, mean=(0.5,) * 3, std=(0.25,) * 3),
        postprocess=Postprocess(method="detections", min_score=0.0),
    )
    return Segmenter(spec, torch_engine("instance", network))


def toy_image(seed: int, height: int = 70, width: int = 90, channels: int = 3, dtype: type = np.uint8) -> np.ndarray:
    """Draw smooth blobs over the whole range of values, so that classes have areas rather than noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((height // 8 + 2, width // 8 + 2, channels))
    image = np.kron(coarse, np.ones((8, 8, 1)))[:height, :width]
    return image.astype(np.float32) if dtype is np.float32 else (image * np.iinfo(dtype).max).astype(dtype)


def toy_reader(count: int = 6, channels: int = 3, dtype: type = np.uint8, height: int = 70) -> MemoryReader:
    rng = np.random.default_rng(5)
    images = [toy_image(i, height + i, 90, channels, dtype) for i in range(count)]
    labels = [rng.integers(0, 3, image.shape[:2]).astype(np.uint8) for image in images]
    return MemoryReader([Sample(f"img-{i}", a, b) for i, (a, b) in enumerate(zip(images, labels, strict=True))])


def toy_selection(promotable: bool = True, **changes: Any) -> Selection:
    """Return a selection whose winner is the network of this module."""
    verdict = "pass" if promotable else "fail"
    content = {
        "winner": "unet",
        "promotable": promotable,
        "summary": "unet is the only network.",
        "data_hash": "da7a" * 16,
        "metric": "iou.dataset.macro",
        "ranking": [
            {
                "candidate": "unet",
                "family": "unet",
                "kind": "network",
                "val": 0.7,
                "interval": {"low": 0.68, "high": 0.74, "confidence": 0.95},
                "test": {"iou.dataset.macro": 0.71, "accuracy.pixel": 0.9, "dice.none": None},
            },
        ],
        "gates": [
            {
                "name": "floor",
                "verdict": verdict,
                "sentence": "0.71 (at least 0.68) is above 0.30.",
                "reason": "A model below it is of no use.",
                "metric": "iou.dataset.macro",
            }
        ],
        "champion": None,
        "classes": CLASSES.names,
        "test_images": 20,
    }
    return Selection.model_validate(content | changes)


def write_toy_bundle(out: Path, seed: int = 0, **reader) -> Path:
    """Export a bundle. Another seed gives another model."""
    from segpipe.release.export.bundle_export import write_bundle

    trained = toy_segmenter(seed, reader.get("channels", 3))
    weights = f"{seed:02d}" * 32
    write_bundle(
        trained, weights, toy_reader(**reader), toy_selection(), ExportParams(golden=3, min_agreement=0.999), out
    )
    Reference(dtype="uint8", images=1, values={"mean of channel 1": [float(seed)]}).write(out / REFERENCE_FILE)
    return out


def run(root: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout} {done.stderr}"
    return done.stdout


def dvc(root: Path, *arguments: str) -> str:
    return run(root, sys.executable, "-m", "dvc", *arguments)

"""A small evaluated workspace: images whose brightness is their class, and engines that predict it with errors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segpipe.config import Params, parse_params
from segpipe.data.manifest.fingerprint import Fingerprint, Range
from segpipe.data.shards import ShardReader, write_shards
from segpipe.evaluation.evaluate import evaluate_candidate
from segpipe.inference import scoring
from segpipe.inference.preprocess import Normalisation
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.samples import IGNORE, ClassTable, Sample

CLASSES = ClassTable.from_names(["background", "cell", "nucleus"])
PARAMS = """
candidates: {unet: {family: unet}, deeplab: {family: deeplabv3plus}, kmeans: {family: kmeans}}
evaluate: {gallery: 2, resamples: 400}
"""


class Reading:
    """An engine that predicts the class from the brightness, with errors on a share of the pixels that depend on their values."""

    name = "reading"

    def __init__(self, errors: float, n_classes: int = 3) -> None:
        self.errors, self.n_classes = errors, n_classes

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        value = batch[:, 0]
        class_ids = np.floor(value * self.n_classes)
        wrong = (np.abs(np.sin(value * 1e4)) * 97) % 1 < self.errors
        class_ids = np.where(wrong, (class_ids + 1) % self.n_classes, class_ids)
        return -np.abs(class_ids[:, None] - np.arange(self.n_classes)[None, :, None, None]).astype(np.float32)


def make_segmenter(errors: float, candidate: str = "unet", classes: ClassTable = CLASSES, **lineage: str) -> Segmenter:
    """Return a segmenter with errors on this share of the pixels."""
    plain = Normalisation(low=(0,), high=(1,), mean=(0,), std=(1,))
    spec = SegmenterSpec(
        candidate=candidate, family="unet", classes=classes, normalisation=plain, stride=8, lineage=lineage
    )
    return Segmenter(spec, Reading(errors, len(classes)))


def make_samples(count: int, groups: int = 0) -> list[Sample]:
    """Return images of discs, float32 in 0..1, with an ignored border."""
    samples = []
    for index in range(count):
        rng = np.random.default_rng(index)
        rows, columns = np.mgrid[:40, :52]
        labels = np.zeros((40, 52), np.uint8)
        for _ in range(3):
            distance = np.hypot(rows - rng.uniform(0, 40), columns - rng.uniform(0, 52))
            labels[distance < 9] = 1
            labels[distance < 4] = 2
        image = ((labels + rng.uniform(0.05, 0.95, labels.shape)) / 3).astype(np.float32)
        labels[:2] = IGNORE
        group = f"slide {index % groups}" if groups else None
        samples.append(Sample(f"img-{index:02d}", image[:, :, None], labels, group=group))
    return samples


@pytest.fixture(scope="session")
def params() -> Params:
    """Two networks and a baseline."""
    return parse_params(PARAMS)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of twenty test images in eight groups."""
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, "test", make_samples(20, groups=8), len(CLASSES))
    return folder


@pytest.fixture(scope="session")
def reader(shards: Path) -> ShardReader:
    """The test images."""
    return ShardReader(shards, "test")


@pytest.fixture(scope="session")
def fingerprint() -> Fingerprint:
    """The dataset in numbers."""
    size = Range(min=40, median=40, max=40)
    pixels = {"train": [9, 9, 9], "val": [9, 9, 9], "test": [9, 9, 9]}
    return Fingerprint(
        data_hash="d" * 64,
        classes=CLASSES,
        n_images={"train": 60, "val": 15, "test": 20},
        channels=1,
        dtype="float32",
        height=size,
        width=size,
        class_pixels=pixels,
        ignored_pixels={"train": 0, "val": 0, "test": 0},
        low=[0.0],
        high=[1.0],
        mean=[0.5],
        std=[0.2],
        groups=8,
        instances=False,
    )


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory, params: Params, reader: ShardReader) -> Path:
    """The workspace that `workspace` copies."""
    root = tmp_path_factory.mktemp("evaluated")
    for name, errors, score in (("unet", 0.05, 0.8), ("deeplab", 0.1, 0.7), ("kmeans", 0.4, None)):
        segmenter = make_segmenter(errors, name, data="d1", plan=f"p-{name}")
        evaluate_candidate(segmenter, reader, root / "evaluation" / name, params.evaluate, name, val_score=score)
    (root / "champion.json").write_text(json.dumps({"version": None}))
    return root


@pytest.fixture
def workspace(tmp_path: Path, evaluated: Path) -> Path:
    """A workspace with three evaluated candidates, unet (the best), deeplab and kmeans, and no champion."""
    shutil.copytree(evaluated, tmp_path / "workspace")
    return tmp_path / "workspace"


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, workspace: Path) -> Callable[[Segmenter], None]:
    """A function that makes a segmenter the champion v0.2.0 of the workspace."""

    def put(segmenter: Segmenter) -> None:
        (workspace / "champion.json").write_text(json.dumps({"version": "v0.2.0", "commit": "c" * 40}))
        monkeypatch.setattr(scoring, "bundle_for_scoring", lambda bundle, reader: segmenter)

    return put

"""Tests of a real Bento with every kind of model: it is built, served by a process, and compared with its golden images.

`tests/release/test_bento.py` does this for semantic networks; `tests/models/test_contract.py` tests every family with the same
app, without the process.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from segpipe.config import ExportParams
from segpipe.inference.engines.engine import TorchEngine
from segpipe.inference.postprocess import Postprocess
from segpipe.inference.preprocess import Normalisation
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.spec import SegmenterSpec
from segpipe.release.export.bundle_export import write_bundle
from segpipe.release.export.golden import Reader
from segpipe.release.packaging.bento import build_bento
from segpipe.release.packaging.blessing import bless
from tests.worlds.bundles import toy_detector, toy_network, toy_reader, toy_segmenter, toy_selection
from tests.worlds.readers import MemoryReader
from tests.worlds.volumes import TABLE, TinyVolumeConfig, build, ellipsoid

pytestmark = pytest.mark.slow


def with_distance() -> tuple[Segmenter, Reader]:
    plain = toy_segmenter()
    postprocess = Postprocess(method="distance", h=0.1)
    spec = plain.spec.model_copy(update={"distance": True, "postprocess": postprocess})
    return Segmenter(spec, TorchEngine(toy_network(0, n_classes=4))), toy_reader()


def detector() -> tuple[Segmenter, Reader]:
    return toy_detector(), toy_reader()


def for_volumes() -> tuple[Segmenter, Reader]:
    torch.manual_seed(4)
    normalisation = Normalisation(low=(0,), high=(1,), mean=(0,), std=(1,), per_image=True)
    spec = SegmenterSpec(
        candidate="unet",
        family="unet3d",
        classes=TABLE,
        normalisation=normalisation,
        dims=3,
        patch3d=(16, 16, 16),
        spacing=(1.0, 1.0, 1.0),
        stride=4,
    )
    reader = MemoryReader([ellipsoid(i) for i in range(2)])
    return Segmenter(spec, TorchEngine(build(TinyVolumeConfig(), 1, 3).eval())), reader


@pytest.mark.parametrize("kind", [with_distance, detector, for_volumes])
def test_a_bento_of_each_kind_is_blessed(
    kind: Callable[[], tuple[Segmenter, Reader]], tmp_path: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BENTOML_HOME", raising=False)
    trained, reader = kind()
    write_bundle(trained, "0" * 64, reader, toy_selection(), ExportParams(golden=2), tmp_path / "bundle")
    shutil.copy(repo_root / "bentofile.yaml", tmp_path)
    (tmp_path / "params.yaml").write_text("candidates: {unet: {family: unet}}\n")
    report = bless(build_bento(tmp_path, "v0.1.0"), tmp_path / "bundle")
    assert (report.images, report.differing_pixels) == (2, 0) and report.pixels > 0

"""Trained models answer images of another depth or voxel order as they answer images like the training images, or refuse them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from segpipe.config import DataParams
from segpipe.data.images import read_mask
from segpipe.workspace.params_file import set_params
from tests.e2e.conftest import FIXED, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
GATES: dict[str, Any] = {f"gates.{name}": None for name in ("floor", "baseline", "champion", "test_size")}
"""The models are trained for seconds, so no gate may stop their release."""
TRAINING = {
    "train.budget": "20 steps",
    "train.patch": 64,
    "train.validations": 2,
    "train.augment": "off",
    **FIXED,
    **GATES,
}


def train(root: Path, source: Path, candidate: dict[str, str]) -> Path:
    """Import a source into a new workspace, and train one small network; return the workspace."""
    run("segpipe", "init", root, "--data", source, cwd=root.parent)
    set_params(root, {**TRAINING, "candidates": {"a": candidate}})
    run("git", "commit", "-qam", "A short training", cwd=root)
    run("segpipe", "run", cwd=root)
    return root


def predict(root: Path, image: Path, out: Path) -> tuple[Path | None, str]:
    """Segment one image; return its mask, or None if it is refused, and the error."""
    done = run("segpipe", "predict", image, "--model", "bundle", "--out", out, cwd=root, check=False)
    if done.code:
        assert done.code == 3
        return None, done.err
    listed = json.loads((out / "predictions.json").read_text())
    assert listed
    return next(path for path in (out / "masks").rglob("*") if path.is_file()), ""


@pytest.fixture
def case(shared_cases: Path) -> Callable[[str], Path]:
    return lambda name: shared_cases / name


def test_uploads_of_another_depth(case: Callable[[str], Path], tmp_path: Path) -> None:
    folder = case("T03_upload_of_other_depth")
    unet = {"family": "unet", "encoder": "tf_efficientnet_lite0", "encoder_weights": "none"}
    root = train(tmp_path / "w", folder / "src", unet)
    for number in (0, 5):
        expected, _ = predict(root, folder / f"serve/t{number}-8.png", tmp_path / f"{number}-8")
        assert expected is not None
        for name in (f"t{number}-16.png", f"t{number}-01.tif"):
            mask, _ = predict(root, folder / "serve" / name, tmp_path / name)
            assert mask is not None
            np.testing.assert_array_equal(read_mask(mask, DataParams()), read_mask(expected, DataParams()))
        refused, error = predict(root, folder / f"serve/t{number}-16dark.png", tmp_path / f"{number}-dark")
        assert refused is None
        assert "found 16-bit numbers" in error and "expected 8-bit numbers" in error


def test_scans_in_other_voxel_orders(case: Callable[[str], Path], tmp_path: Path) -> None:
    folder = case("T04_other_voxel_order")
    root = train(tmp_path / "w", folder / "src", {"family": "unet3d"})

    def answer(name: str) -> tuple[np.ndarray | None, str]:
        """Return the answer turned to RAS."""
        image = folder / "serve" / f"{name}.nii.gz"
        mask, error = predict(root, image, tmp_path / name)
        if mask is None:
            return None, error
        scan, labels = nibabel.load(image), nibabel.load(mask)
        np.testing.assert_allclose(labels.affine, scan.affine)
        assert all(int(labels.header[code]) == int(scan.header[code]) for code in ("qform_code", "sform_code"))
        return np.asarray(nibabel.as_closest_canonical(labels).dataobj), ""

    expected, _ = answer("ras")
    assert expected is not None
    for name in ("LAS", "LPS", "PSR", "SRA"):
        np.testing.assert_array_equal(answer(name)[0], expected)
    for name, words in (
        ("float", "another scale"),
        ("noform", "orientation"),
        ("q_differs_s", "different orientations"),
        ("fourd", "channels"),
    ):
        refused, error = answer(name)
        assert refused is None
        assert words in error

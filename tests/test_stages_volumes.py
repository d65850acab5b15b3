"""Volumes go through all stages, from import to a mask in the grid of the input: small ellipsoids, and real ones if present."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from segpipe import stages
from segpipe.config import DataParams
from segpipe.files import sha256_file
from segpipe.inference.files.batch import predict_files
from segpipe.inference.segmenter import Segmenter
from tests.worlds.stage_runs import run_stages, write_volumes
from tests.worlds.volumes import ellipsoid, register

pytestmark = pytest.mark.slow  # every stage, Great Expectations among them
LIMITS = DataParams()


PARAMS = """
split: {val: 0.2, test: 0.3}
train: {budget: 60 steps, batch: 2, augment: light, learning_rate: 0.01}
candidates: {net: {family: tiny3d}, kmeans: {family: kmeans, clusters: 8, pixels: 20000}}
evaluate: {gallery: 1, resamples: 200}
gates: {floor: {metric: iou.dataset.macro, at_least: 0.05}, baseline: null, test_size: {mode: warn, at_least: 1}}
"""


@pytest.fixture(scope="module")
def trained_workspace(tmp_path_factory) -> tuple[Path, dict]:
    register()
    folder = tmp_path_factory.mktemp("volumes")
    write_volumes(folder / "source", 12)
    return folder / "ws", run_stages(folder / "ws", folder / "source", PARAMS, ["net", "kmeans"])


def test_networks_and_baselines_are_scored_on_volumes(trained_workspace):
    root, metrics = trained_workspace
    for name, scores in metrics.items():
        test = scores["test"]
        assert test["images"] >= 2 and test["pixels"] > 10_000
        assert test["surface"]["hd95"]["image"]["macro"] > 0, "millimetres"
        assert name == "kmeans" or test["iou"]["dataset"]["macro"] > 0.3
    gallery = json.loads((root / "evaluation" / "net" / "gallery" / "index.json").read_text())
    assert {p["kind"] for p in gallery["pictures"]} >= {"worst", "best"}
    assert gallery["pictures"][0]["width"] > 2 * gallery["pictures"][0]["height"], "three planes side by side"


def test_the_same_plan_trains_the_same_weights_even_if_the_training_was_killed(trained_workspace, monkeypatch):
    from segpipe.training import loop

    root, _ = trained_workspace
    weights = root / "models" / "net" / "weights.safetensors"
    before = sha256_file(weights)
    plan = root / "plans" / "net.json"
    text = plan.read_text()
    validate = loop.TrainingLoop._validate

    def interrupted_validation(run):
        run._save_checkpoint()
        if run.state.step >= 30:
            raise KeyboardInterrupt
        return validate(run)

    monkeypatch.setattr(loop.TrainingLoop, "_validate", interrupted_validation)
    with pytest.raises(KeyboardInterrupt):
        stages.train(root, "net")
    monkeypatch.undo()
    stages.train(root, "net")
    assert plan.read_text() == text and sha256_file(weights) == before


def test_the_winner_answers_in_the_grid_of_its_input(trained_workspace, tmp_path):
    root, _ = trained_workspace
    stages.select(root)
    stages.export(root)
    assert "volumes" in (root / "bundle" / "README.md").read_text()
    affine = np.diag([-2.0, 1.0, 1.5, 1.0])
    affine[:3, 3] = (5, 6, 7)
    voxels = ellipsoid(77, (16, 24, 12)).image[..., 0].transpose(2, 1, 0)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / "new.nii.gz")
    (row,) = predict_files(Segmenter.from_bundle(root / "bundle"), [tmp_path / "new.nii.gz"], tmp_path / "out", LIMITS)
    answer = nibabel.load(tmp_path / "out" / row["mask"])
    assert answer.shape == voxels.shape
    np.testing.assert_allclose(answer.affine, affine)
    labels = ellipsoid(77, (16, 24, 12)).labels.transpose(2, 1, 0)
    assert (np.asarray(answer.dataobj) == labels).mean() > 0.7


def test_hippocampus_is_learned_in_a_few_steps(shared_data, tmp_path):
    params = """
train: {budget: 40 steps, batch: 2, rare_crops: 0.5}
split: {test: 0.05, val: 0.05}
candidates: {net: {family: unet3d, channels: 8}}
evaluate: {gallery: 1, resamples: 200}
"""
    metrics = run_stages(tmp_path / "ws", shared_data / "hippocampus", params, ["net"])["net"]
    history = json.loads((tmp_path / "ws" / "models" / "net" / "history.json").read_text())
    assert history["train"][-1]["loss"] < 0.8 * history["train"][0]["loss"]
    assert metrics["test"]["images"] > 3
    assert "spacing" in json.loads((tmp_path / "ws" / "models" / "net" / "segmenter.json").read_text())

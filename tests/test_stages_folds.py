"""A candidate with folds, stage by stage, from `split.folds` to a bundle of one graph."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from segpipe import stages
from segpipe.data.shards import ShardReader
from segpipe.inference.segmenter import Segmenter
from segpipe.inference.trained_model import load_trained
from segpipe.pages.suspects import write_suspects
from segpipe.training.plan import Plan
from tests.worlds.stage_runs import run_stages, write_volumes
from tests.worlds.volumes import register

pytestmark = pytest.mark.slow  # every stage, Great Expectations among them

PARAMS = """
split: {val: 0.2, test: 0.3, folds: 3}
train: {budget: 30 steps, batch: 2, augment: light, learning_rate: 0.01, folds: 3}
candidates: {net: {family: tiny3d}, kmeans: {family: kmeans, clusters: 8, pixels: 20000}}
evaluate: {gallery: 1, resamples: 200}
gates: {floor: {metric: iou.dataset.macro, at_least: 0.05}, baseline: null, test_size: {mode: warn, at_least: 1}}
export: {golden: 2}
"""


@pytest.fixture(scope="module")
def trained_workspace(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    register()
    folder = tmp_path_factory.mktemp("folds")
    write_volumes(folder / "source", 14)
    return folder / "ws", run_stages(folder / "ws", folder / "source", PARAMS, ["net", "kmeans"])


def test_members_use_the_folds_of_the_split_and_share_the_budget(trained_workspace: tuple[Path, dict]) -> None:
    root, metrics = trained_workspace
    plan = Plan.read(root / "plans" / "net.json")
    assert plan.folds is not None and plan.recipe is not None
    assert (plan.folds.count, plan.folds.dealt, plan.recipe.steps) == (3, "split", 10)
    assert Plan.read(root / "plans" / "kmeans.json").folds is None
    folds = json.loads((root / "models" / "net" / "folds.json").read_text())
    splits = {split: set(ShardReader(root / "artifacts" / "shards", split).keys) for split in ("train", "val", "test")}
    assert folds.keys() == splits["train"] | splits["val"]
    assert folds == json.loads((root / "artifacts" / "shards" / "folds.json").read_text())
    history = json.loads((root / "models" / "net" / "history.json").read_text())
    assert metrics["net"]["val"]["folds"]["mean"] == history["folds"]["mean"]
    assert metrics["net"]["val"]["iou"]["dataset"]["macro"] == history.get("finished_score", history["best_score"])


def test_the_graph_of_the_bundle_gives_the_mean_of_the_members(trained_workspace: tuple[Path, dict]) -> None:
    root, _ = trained_workspace
    stages.select(root)
    stages.export(root)
    assert "mean of 3 networks" in (root / "bundle" / "README.md").read_text()
    assert "members on their folds" in (root / "reports" / "report.html").read_text()
    assert not (root / "bundle" / "folds.json").exists()
    trained, bundle = load_trained(root / "models" / "net"), Segmenter.from_bundle(root / "bundle", "onnxruntime")
    assert bundle.spec.members == 3
    for sample in ShardReader(root / "artifacts" / "shards", "test"):
        options = {"probabilities": True, "spacing": sample.spacing}
        probabilities = bundle.at_temperature(1.0).predict(sample.image, **options).probabilities
        members = [member.predict(sample.image, **options).probabilities for member in trained.members]
        np.testing.assert_allclose(probabilities, np.mean(members, 0), atol=1e-4)


def test_training_images_are_searched_for_wrong_labels(trained_workspace: tuple[Path, dict]) -> None:
    root, _ = trained_workspace
    result = write_suspects(root, "net", 50, root / "reports" / "suspects.html")
    folds = json.loads((root / "models" / "net" / "folds.json").read_text())
    assert result.out_of_fold == len(folds) and result.images == 14
    assert all(s.fold == folds.get(s.key) for s in result.suspects)

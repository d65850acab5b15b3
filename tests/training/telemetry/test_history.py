"""The history of a trained model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segpipe.errors import DataError
from segpipe.training.telemetry.history import TrainingHistory


@pytest.mark.parametrize(
    ("content", "score", "mean"),
    [
        ({"best_score": 0.7, "best_step": 3, "train": [], "val": []}, 0.7, None),
        ({"best_score": 0.7, "finished_score": 0.72}, 0.72, None),
        ({"best_score": 0.7, "finished_score": 0.72, "val_images": 8}, None, None),
        ({"best_score": 0.7, "folds": {"scores": [0.5, 0.7], "mean": 0.6, "sd": 0.1}, "members": []}, 0.7, 0.6),
        ({}, None, None),
    ],
)
def test_the_history_of_a_training(tmp_path: Path, content: dict, score: float | None, mean: float | None) -> None:
    (tmp_path / "history.json").write_text(json.dumps(content))
    history = TrainingHistory.read(tmp_path)
    assert history.val_score == score
    assert (history.folds.mean if history.folds else None) == mean


def test_a_history_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        TrainingHistory.read(tmp_path / "unet")
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "history.json").write_text('{"best_score": "high"}')
    with pytest.raises(DataError, match=r"is not a valid training history.*dvc repro -f train@unet"):
        TrainingHistory.read(tmp_path / "unet")

import json
import signal

import pytest

from segpipe.config import TrainParams
from segpipe.training import loop
from segpipe.training.scoring import Score
from segpipe.training.step import Stepper
from segpipe.training.train import train_on
from tests.worlds.tiny_training import CLASSES, make_plan


@pytest.fixture
def run(tmp_path, train_reader, val_reader, monkeypatch):
    """Trains with these scores of validations; returns the history."""
    scores = []
    monkeypatch.setattr(loop, "score_split", lambda *_: Score(scores.pop(0), 0.5))

    def run(validation_scores, **recipe):
        scores[:] = validation_scores
        plan = make_plan(val_every=1, patch=32, **recipe)
        train_on(plan, CLASSES, train_reader, val_reader, tmp_path / "out", tmp_path / "live", tmp_path / "checkpoints")
        return json.loads((tmp_path / "out" / "history.json").read_text())

    return run


@pytest.mark.parametrize(
    ("patience", "last"), [(None, 6), (1, 2), (2, 5), (3, 6)], ids=lambda v: str(v)
)  # a better score at step 3 restarts the count
def test_training_stops_after_this_many_validations_without_a_better_score(run, patience, last, capfd):
    history = run([0.4, 0.3, 0.5, 0.5, 0.2, 0.4], patience=patience)
    assert [entry["step"] for entry in history["val"]] == list(range(1, last + 1))
    assert history["best_step"] == (1 if last < 3 else 3)
    output = capfd.readouterr().err
    assert ("no better since step" in output) == (last < 6)
    assert last == 6 or f"stopped after {last} of 6" in output


def test_after_ctrl_c_at_the_last_moment_training_does_not_continue(run, monkeypatch, tmp_path):
    step = Stepper.step

    def interrupted(self, number, *rest):
        if number == 2:
            signal.raise_signal(signal.SIGINT)
        return step(self, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run([0.4, 0.3, 0.2], patience=2)
    assert list((tmp_path / "checkpoints").iterdir())
    monkeypatch.setattr(Stepper, "step", None)
    history = run([], patience=2)
    assert [entry["iou_macro"] for entry in history["val"]] == [0.4, 0.3, 0.2] and history["best_step"] == 1


def test_patience_is_off_by_default():
    assert TrainParams().patience is None

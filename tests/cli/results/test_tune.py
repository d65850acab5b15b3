import json

import pytest
import yaml

from segpipe.cli.results import tune
from segpipe.training.tuning import TrialResult

PARAMS = """\
# Kept.
candidates:
  unet:
    family: unet  # this one, too
"""
BETTER = {
    "learning_rate": 0.01,
    "loss": {"cross_entropy": {"weight": 1.0, "label_smoothing": 0.1}, "dice": 0.7},
    "augment": "off",
}


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.setattr(tune, "workspace_root", lambda: tmp_path)

    def found(*tried):
        monkeypatch.setattr("segpipe.stages.tune", lambda *_: list(tried))
        return tmp_path / "params.yaml"

    return found


def test_the_best_settings_are_printed_to_be_pasted_and_written_where_asked(workspace, capsys):
    params = workspace(
        TrialResult(3, BETTER, 0.7, "finished"), TrialResult(0, {"learning_rate": 0.002}, 0.6, "finished")
    )
    tune.tune("unet", 2, None)
    out, error = capsys.readouterr()
    assert params.read_text() == PARAMS and "--apply writes it" in error
    pasted = yaml.safe_load(out[out.index("candidates:") :])
    assert pasted["candidates"]["unet"]["train"] == BETTER
    tune.tune("unet", 2, None, apply=True)
    from segpipe.config import parse_params

    text = params.read_text()
    wanted = parse_params(text).train_for("unet")
    assert "# Kept." in text and "# this one, too" in text
    assert (wanted.learning_rate, wanted.augment, wanted.loss.dice.weight) == (0.01, "off", 0.7)
    assert wanted.loss.cross_entropy.label_smoothing == 0.1


def test_where_nothing_is_better_nothing_is_written(workspace, capsys):
    params = workspace(
        TrialResult(0, {"learning_rate": 0.002}, 0.6, "finished"), TrialResult(1, BETTER, 0.5, "fell behind")
    )
    tune.tune("unet", 2, None, apply=True)
    assert params.read_text() == PARAMS and "nothing tried is better" in capsys.readouterr().err


def test_json_for_a_program(workspace, capsys):
    workspace(TrialResult(3, BETTER, 0.7, "finished"))
    tune.tune("unet", 2, None, json=True)
    assert json.loads(capsys.readouterr().out)["best"] == {
        "number": 3,
        "settings": BETTER,
        "score": 0.7,
        "ended": "finished",
    }

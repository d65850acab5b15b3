"""Tests of stage commands: what they record in dvc.lock if a user calls them, and if DVC does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from segpipe import stages
from segpipe.cli.main import main
from segpipe.errors import MissingError
from segpipe.workspace import pipeline
from tests.worlds import pipelines


@pytest.fixture
def call(tmp_path: Path, monkeypatch):
    """Run `segpipe STAGE a` in a workspace where plan@a and train@a only write a file."""
    root = pipelines.make(tmp_path / "ws", {})
    each = {
        "plan": {"cmd": "segpipe plan ${item}", "deps": ["data"], "outs": [{"plan.json": {"cache": False}}]},
        "train": {"cmd": "segpipe train ${item}", "deps": ["plan.json"], "outs": ["weights"]},
    }
    (root / "dvc.yaml").write_text(
        yaml.safe_dump({"stages": {name: {"foreach": ["a"], "do": do} for name, do in each.items()}})
    )
    monkeypatch.setattr(stages, "plan", lambda root, *_: (root / "plan.json").write_text("measured"))
    monkeypatch.setattr(stages, "train", lambda root, *_: (root / "weights").write_text("learned"))
    monkeypatch.setattr("segpipe.cli.stages.workspace_root", lambda: root)

    def run(*arguments: str, code: int = 0) -> Path:
        monkeypatch.setattr(sys, "argv", ["segpipe", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert (end.value.code or 0) == code
        return root

    return run


def test_a_manual_plan_and_training_are_not_repeated(call):
    assert set(pipeline.stale(call("plan", "a"))) == {"train@a"}
    root = call("train", "a")
    assert pipeline.stale(root) == {}
    (root / "plan.json").write_text("of another machine")
    assert set(pipeline.stale(call("plan", "a", "--refresh"))) == set(), "the same plan as before: nothing to train"
    (root / "data" / "x.txt").write_text("other")
    assert set(pipeline.stale(root)) == {"plan@a"}, "its inputs are recorded too"


@pytest.mark.parametrize(
    "surroundings", [{"DVC_STAGE": "plan@a"}, {"TORCHELASTIC_RUN_ID": "x", "RANK": "1"}], ids=["DVC", "second process"]
)
def test_nothing_is_recorded_by_a_stage_of_dvc_or_by_a_second_process(call, monkeypatch, surroundings):
    for name, value in surroundings.items():
        monkeypatch.setenv(name, value)
    assert "plan@a" in pipeline.stale(call("plan", "a"))


def test_a_training_by_an_older_plan_is_repeated(call, monkeypatch, capsys):
    root = call("plan", "a")

    def train(root, *_):
        (root / "weights").write_text("learned")
        (root / "plan.json").write_text("planned meanwhile")

    monkeypatch.setattr(stages, "train", train)
    call("train", "a")
    assert "train@a" in pipeline.stale(root)
    assert "train@a: its inputs changed while it ran" in capsys.readouterr().err


def test_a_failed_stage_is_not_recorded(call, monkeypatch, capsys):
    root = call("plan", "a")

    def train(root, *_):
        (root / "weights").write_text("half")
        raise MissingError("no shards", where="artifacts/shards", fix="segpipe run")

    monkeypatch.setattr(stages, "train", train)
    call("train", "a", code=MissingError.exit_code)
    assert "train@a" in pipeline.stale(root)
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: artifacts/shards: no shards")


@pytest.mark.parametrize("stage", ["plan", "train"])
def test_the_error_names_an_unknown_candidate(call, capsys, stage):
    call(stage, "nobody", code=2)
    assert "params.yaml: no such candidate (found nobody, expected a)" in capsys.readouterr().err

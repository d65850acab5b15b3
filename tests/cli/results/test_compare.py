"""Tests of `segpipe compare`: its output, its page, its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from segpipe.cli.main import app
from segpipe.errors import SegpipeError
from tests.worlds.evaluated_workspace import PARAMS, evaluated, params, reader, shards, workspace  # noqa: F401  a small one


@pytest.fixture
def root(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """A workspace, which is the current folder."""
    (workspace / "params.yaml").write_text(PARAMS)
    (workspace / "dvc.yaml").write_text("stages: {}\n")
    (workspace / "selection.json").write_text(json.dumps({"winner": "unet"}))
    monkeypatch.chdir(workspace)
    return workspace


def test_text_for_people_and_json_for_programs(root: Path) -> None:
    done = CliRunner().invoke(app, ["compare", ".:kmeans", "."])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("workspace is better than workspace kmeans: IoU (macro, dataset)")
    assert "class nucleus: +" in done.output and str(root / "reports" / "compare.html") in done.output.replace("\n", "")
    assert "<!doctype html>" in (root / "reports" / "compare.html").read_text()
    done = CliRunner().invoke(app, ["compare", ".:unet", ".:kmeans", "--json", "--out", "page.html"])
    result = json.loads(done.stdout)
    assert result["verdict"] == "worse" and result["difference"] < 0 and result["compared"]["images"] == 20
    assert result["low"] <= result["difference"] <= result["high"] < 0 and (root / "page.html").exists()


@pytest.mark.parametrize(("words", "code"), [(["nope", "."], 6), ([".", "v9.9.9"], 6), ([".:x", "."], 6)])
def test_exit_codes(root: Path, words: list[str], code: int) -> None:
    done = CliRunner().invoke(app, ["compare", *words])
    assert isinstance(done.exception, SegpipeError) and done.exception.exit_code == code
    assert "Fix: " in str(done.exception)

"""Tests of the demo on a machine that is too slow for its budget."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from segpipe import retraining
from segpipe.cli.start import demo
from segpipe.errors import SegpipeError
from segpipe.workspace.create import create_workspace


def budget(root: Path) -> str:
    return yaml.safe_load((root / "params.yaml").read_text())["train"]["budget"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    create_workspace(tmp_path / "demo")
    return tmp_path / "demo"


def test_a_slow_machine_gets_more_time(root, monkeypatch):
    seen = []

    def run(folder, promote, verbose):
        seen.append(budget(folder))
        if len(seen) < 3:
            raise SegpipeError("the budget is too short for any useful training", where="train.budget")
        return {"live": "v0.1.0"}

    monkeypatch.setattr(retraining, "run_pipeline", run)
    assert demo._run(root, verbose=False) == {"live": "v0.1.0"}
    assert seen[1:] == list(demo.BUDGETS[1:])


def test_any_other_error_ends_the_demo(root, monkeypatch):
    def run(folder, promote, verbose):
        raise SegpipeError("no disk")

    monkeypatch.setattr(retraining, "run_pipeline", run)
    with pytest.raises(SegpipeError, match="no disk"):
        demo._run(root, verbose=False)


@pytest.mark.parametrize(
    ("terminal", "display", "opened"), [(True, ":0", True), (True, None, False), (False, ":0", False)]
)
def test_the_report_opens_for_a_person_with_a_display(root, monkeypatch, terminal, display, opened):
    pages = []
    monkeypatch.setattr(demo.typer, "launch", pages.append)
    monkeypatch.setattr(demo.sys, "platform", "linux")
    monkeypatch.setattr(demo.sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    if display:
        monkeypatch.setenv("DISPLAY", display)
    demo._open_report(root)
    assert [page.endswith("/reports/report.html") for page in pages] == [True] * opened

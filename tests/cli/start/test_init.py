"""`segpipe init`: what it refuses, and that a failed one leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import segpipe.cli.start.init as init_command
from segpipe.cli.main import app
from segpipe.errors import SegpipeError
from tests.worlds.layouts import photo, save, values

RUNNER = CliRunner()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source with two pairs."""
    folder = tmp_path / "source"
    for seed in range(2):
        photo(folder / "images" / f"{seed}.png", seed)
        save(folder / "masks" / f"{seed}.png", values(seed, [0, 1, 2]))
    return folder


def error_of(*arguments: object) -> SegpipeError:
    """Run `segpipe init` and return its error."""
    result = RUNNER.invoke(app, ["init", *map(str, arguments)])
    assert isinstance(result.exception, SegpipeError), result.output
    return result.exception


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--format", "foldr"], "did you mean `folder`"),
        (["--format", "coco"], "no annotation file|coco|JSON"),
        (["--suffix", "_M"], "no mask has this suffix"),
        (["--group", "(a"], "not a regular expression"),
        (["--group", "^(.)", "--group-from-folder"], "groups are named twice"),
    ],
)
@pytest.mark.parametrize("exists", [False, True])
def test_a_failed_init_leaves_nothing(
    source: Path, tmp_path: Path, options: list[str], words: str, exists: bool
) -> None:
    workspace = tmp_path / "w"
    if exists:
        workspace.mkdir()
    error_of(workspace, "--data", source, *options)
    assert workspace.exists() == exists
    assert not exists or not any(workspace.iterdir())
    assert sorted(path.name for path in source.iterdir()) == ["images", "masks"]


def test_an_interrupt_leaves_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(init_command, "import_data", interrupted)
    RUNNER.invoke(app, ["init", str(tmp_path / "w"), "--data", str(source)])
    assert not (tmp_path / "w").exists()


def test_a_workspace_that_was_there_stays(source: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    assert RUNNER.invoke(app, ["init", str(workspace)]).exit_code == 0
    (workspace / "notes.txt").write_text("mine")
    error_of(workspace, "--data", source, "--suffix", "_M")
    assert (workspace / "params.yaml").exists() and (workspace / "notes.txt").read_text() == "mine"


def test_source_and_workspace_must_not_contain_each_other(source: Path, tmp_path: Path) -> None:
    for workspace, data in ((source / "w", source), (source.parent, source), (source, source)):
        error = error_of(workspace, "--data", data)
        assert "contain each other" in str(error) and "Fix: create the workspace elsewhere: segpipe init" in str(error)
    assert sorted(path.name for path in source.iterdir()) == ["images", "masks"]


def test_a_workspace_is_no_source_but_its_data_are(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert RUNNER.invoke(app, ["init", str(other), "--data", str(source)]).exit_code == 0
    error = error_of(tmp_path / "w", "--data", other)
    assert "is a workspace, not a folder of labelled images" in str(error)
    assert f"--data {other / 'data'}" in str(error)
    assert RUNNER.invoke(app, ["init", str(tmp_path / "w"), "--data", str(other / "data")]).exit_code == 0

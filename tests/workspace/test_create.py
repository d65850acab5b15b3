"""Workspaces are created, found, locked, and their parameters edited."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from segpipe.config import load_params
from segpipe.errors import BusyError, ConfigError, SegpipeError
from segpipe.workspace import pipeline
from segpipe.workspace.create import TEMPLATE_FILES, create_workspace, template
from segpipe.workspace.git import commit_staged, git
from segpipe.workspace.lock import lock
from segpipe.workspace.params_file import set_params
from segpipe.workspace.prefect_settings import prefect_environment
from segpipe.workspace.root import check_repository, find_root
from tests.worlds import pipelines


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    root = tmp_path_factory.mktemp("made") / "ws"
    assert create_workspace(root)
    return root


def test_a_new_workspace_is_complete(workspace, repo_root):
    for name in ("dvc.yaml", "params.yaml", "bentofile.yaml", "prefect.yaml", ".dvcignore", ".dvc/config"):
        assert (workspace / name).read_bytes() == (repo_root / name).read_bytes(), name
    assert (workspace / "flows" / "retrain.py").read_bytes() == (repo_root / "flows" / "retrain.py").read_bytes()
    assert (workspace / "champion.json").read_text() == '{\n  "version": null\n}\n'
    assert git(workspace, "status", "--porcelain") == ""
    assert git(workspace, "log", "--format=%s") == "A segpipe workspace"
    assert git(workspace, "branch", "--show-current") == "main"
    assert pipeline.graph(workspace).keys() == pipeline.graph(repo_root).keys()
    check_repository(workspace)


def test_outs_of_the_pipeline_are_ignored_where_dvc_would_write_ignore_files(workspace):
    """Otherwise DVC writes evaluation/C/.gitignore, and `select`, which reads evaluation/, hashes it."""
    outs = [
        out if isinstance(out, str) else next(iter(out))
        for stage in yaml.safe_load((workspace / "dvc.yaml").read_text())["stages"].values()
        for out in stage.get("do", stage)["outs"]
        if isinstance(out, str)
    ]
    for out in (o.replace("${key}", "unet") for o in outs):
        assert subprocess.run(["git", "check-ignore", "-q", out], cwd=workspace, check=False).returncode == 0, out


def test_creating_it_again_changes_nothing_and_restores_missing_files(workspace):
    (workspace / "params.yaml").write_text((workspace / "params.yaml").read_text().replace("2m ", "3m "))
    (workspace / "bentofile.yaml").unlink()
    assert not create_workspace(workspace)
    assert load_params(workspace).train.budget == "3m"
    assert (workspace / "bentofile.yaml").exists()


def test_a_folder_with_other_content_is_refused_and_not_changed(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="not empty"):
        create_workspace(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_without_an_identity_segpipe_is_the_author(tmp_path, monkeypatch):
    for name in [n for n in os.environ if n.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    monkeypatch.setenv("HOME", str(tmp_path))
    root = tmp_path / "ws"
    create_workspace(root)
    assert git(root, "log", "--format=%ae") == "segpipe@localhost"
    git(root, "config", "user.email", "me@example.org")
    git(root, "config", "user.name", "me")
    (root / "x").write_text("x")
    git(root, "add", "x")
    assert commit_staged(root, "mine")
    assert git(root, "log", "-1", "--format=%ae") == "me@example.org"


def test_without_changes_there_is_no_commit(workspace):
    assert not commit_staged(workspace, "nothing")


def test_the_error_holds_the_message_of_git(workspace):
    with pytest.raises(SegpipeError, match="nobody"):
        git(workspace, "checkout", "nobody")


def test_outside_a_checkout_the_template_of_the_wheel_is_used(tmp_path, monkeypatch, repo_root):
    import shutil

    import segpipe

    package = tmp_path / "site-packages" / "segpipe"
    (package / "template").mkdir(parents=True)
    monkeypatch.setattr(segpipe, "__file__", str(package / "__init__.py"))
    assert template() == package / "template"
    for name in ("dvc.yaml", "params.yaml", "pyproject.toml"):
        shutil.copy(repo_root / name, package.parent / name)
    assert template() == package.parent


def test_the_wheel_holds_all_template_files(repo_root):
    import tomllib

    wheel = tomllib.loads((repo_root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    shipped = set(wheel["force-include"])
    assert {*TEMPLATE_FILES, "flows"} <= shipped
    assert all(target == f"segpipe/template/{source}" for source, target in wheel["force-include"].items())


def test_a_workspace_is_found_from_a_subfolder(workspace):
    subfolder = workspace / "data" / "images"
    subfolder.mkdir(parents=True)
    assert find_root(subfolder) == workspace.resolve()
    with pytest.raises(ConfigError, match="segpipe init"):
        find_root(workspace.parent)


def test_a_workspace_that_is_not_the_top_of_a_repository_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="git -C"):
        check_repository(tmp_path)


def test_the_lock_is_held_by_one_process_and_names_it(tmp_path):
    root = pipelines.make(tmp_path / "ws", {})
    code = "import sys; from pathlib import Path; from segpipe.workspace.lock import lock\n"
    code += f"with lock(Path({str(root)!r})): print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline().strip() == "held"
        with pytest.raises(BusyError, match=rf"process {holder.pid} since"), lock(root):
            pass
    finally:
        holder.kill()
        holder.wait()
    with lock(root), pytest.raises(BusyError, match=rf"process {os.getpid()} "), lock(root):
        pass  # the holder was killed, so its lock is free
    with lock(root):
        pass


def test_params_are_set_and_comments_stay(tmp_path, repo_root):
    text = (repo_root / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text)
    set_params(tmp_path, {"train.budget": "40s", "train.patch": 64, "gates.champion": None})
    params = load_params(tmp_path)
    assert (params.train.budget, params.train.patch, params.gates.champion) == ("40s", 64, None)
    after = (tmp_path / "params.yaml").read_text()
    assert [line.split("#")[1] for line in text.splitlines() if "#" in line] == [
        line.split("#")[1] for line in after.splitlines() if "#" in line
    ]
    assert params.candidates.keys() == load_params(repo_root).candidates.keys()


@pytest.mark.parametrize("changes", [{"train.budget": "soon"}, {"train.bugdet": "40s"}, {"nothing.here": 1}])
def test_invalid_params_are_not_written(tmp_path, repo_root, changes):
    text = (repo_root / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ConfigError):
        set_params(tmp_path, changes)
    assert (tmp_path / "params.yaml").read_text() == text


def test_prefect_has_its_home_in_the_workspace_unless_the_user_runs_a_server(tmp_path, monkeypatch):
    for name in ("PREFECT_HOME", "PREFECT_API_URL", "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / ".segpipe" / "prefect"
    assert prefect_environment(tmp_path)["PREFECT_HOME"] == str(home) and home.is_dir()
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    assert not {"PREFECT_HOME", "PREFECT_API_URL"} & prefect_environment(tmp_path).keys()


def test_null_stays_null_in_params(tmp_path: Path) -> None:
    shutil.copy(template() / "params.yaml", tmp_path / "params.yaml")
    set_params(tmp_path, {"gates.champion": None, "train.budget": "40s"})
    assert "champion: null" in (tmp_path / "params.yaml").read_text()

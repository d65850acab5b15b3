"""Revisions: what Git and DVC's cache hold of a commit is read without a checkout."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from segpipe.errors import MissingError
from segpipe.workspace.revisions import open_revision, open_workspace
from tests.worlds import pipelines


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A commit with data/ in DVC's cache; since then params.yaml and the data have changed."""
    made = pipelines.make(tmp_path_factory.mktemp("revisions") / "w", {})
    run = ["git", "-C", str(made), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*run, "add", "--all"], check=True)
    subprocess.run([*run, "commit", "-qm", "first"], check=True)
    subprocess.run([*run, "tag", "segmenter@v0.1.0"], check=True)
    (made / "params.yaml").write_text("changed\n")
    data = made / "data" / "x.txt"
    data.unlink()  # a link into the cache
    data.write_text("other\n")
    return made


def test_a_commit_is_read_as_it_was(root: Path, tmp_path: Path) -> None:
    for name in ("HEAD", "segmenter@v0.1.0", "main"):
        then = open_revision(root, name)
        assert then.commit is not None and len(then.commit) == 40
        assert then.read("params.yaml") == pipelines.PARAMS.encode()
        assert then.read("data/x.txt") == b"hello\n"
        assert then.read("nothing.json") is None
    assert then.fetch("data", "*.txt", tmp_path / "got") and (tmp_path / "got" / "x.txt").read_text() == "hello\n"
    assert not then.fetch("data", "*.png", tmp_path / "none") and not then.fetch("no", "*", tmp_path / "none")


def test_the_workspace_is_read_as_it_is(root: Path, tmp_path: Path) -> None:
    now = open_workspace(root)
    assert now.commit is None and now.read("params.yaml") == b"changed\n" and now.read("no") is None
    assert now.fetch("data", "*", tmp_path / "got") and (tmp_path / "got" / "x.txt").read_text() == "other\n"
    assert not now.fetch("no", "*", tmp_path / "none")


def test_what_no_cache_holds_is_not_there(root: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(root, bare, symlinks=True)
    shutil.rmtree(bare / ".dvc" / "cache")
    then = open_revision(bare, "HEAD")
    assert then.read("data/x.txt") is None and not then.fetch("data", "*", tmp_path / "none")
    assert then.read("params.yaml") is not None


def test_an_unknown_revision_is_named_with_what_there_could_be(root: Path, tmp_path: Path) -> None:
    with pytest.raises(
        MissingError, match=r"nope: not a revision of this workspace .*Fix: list them with segpipe models, git log"
    ):
        open_revision(root, "nope")
    with pytest.raises(MissingError):
        open_revision(tmp_path, "HEAD")

"""Files of a commit are read from Git and the DVC cache without a checkout."""

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
    """A commit with data/ in the DVC cache; after it, params.yaml and the data have changed."""
    workspace = pipelines.make(tmp_path_factory.mktemp("revisions") / "w", {})
    run = ["git", "-C", str(workspace), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*run, "add", "--all"], check=True)
    subprocess.run([*run, "commit", "-qm", "first"], check=True)
    subprocess.run([*run, "tag", "segmenter@v0.1.0"], check=True)
    (workspace / "params.yaml").write_text("changed\n")
    data = workspace / "data" / "x.txt"
    data.unlink()  # a link into the cache
    data.write_text("other\n")
    return workspace


def test_a_commit_is_read_as_it_was(root: Path, tmp_path: Path) -> None:
    for name in ("HEAD", "segmenter@v0.1.0", "main"):
        revision = open_revision(root, name)
        assert revision.commit is not None and len(revision.commit) == 40
        assert revision.read("params.yaml") == pipelines.PARAMS.encode()
        assert revision.read("data/x.txt") == b"hello\n"
        assert revision.read("nothing.json") is None
    assert revision.fetch("data", "*.txt", tmp_path / "copy") and (tmp_path / "copy" / "x.txt").read_text() == "hello\n"
    assert not revision.fetch("data", "*.png", tmp_path / "none") and not revision.fetch("no", "*", tmp_path / "none")


def test_the_workspace_is_read_as_it_is(root: Path, tmp_path: Path) -> None:
    revision = open_workspace(root)
    assert revision.commit is None and revision.read("params.yaml") == b"changed\n" and revision.read("no") is None
    assert revision.fetch("data", "*", tmp_path / "copy") and (tmp_path / "copy" / "x.txt").read_text() == "other\n"
    assert not revision.fetch("no", "*", tmp_path / "none")


def test_a_file_that_is_in_no_cache_is_missing(root: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(root, bare, symlinks=True)
    shutil.rmtree(bare / ".dvc" / "cache")
    revision = open_revision(bare, "HEAD")
    assert revision.read("data/x.txt") is None and not revision.fetch("data", "*", tmp_path / "none")
    assert revision.read("params.yaml") is not None


def test_an_unknown_revision_is_an_error_that_lists_the_kinds(root: Path, tmp_path: Path) -> None:
    with pytest.raises(
        MissingError, match=r"nope: not a revision of this workspace .*Fix: list them with segpipe models, git log"
    ):
        open_revision(root, "nope")
    with pytest.raises(MissingError):
        open_revision(tmp_path, "HEAD")

"""Tests of fetching the trained model of a release from the DVC cache."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from segpipe.cli.results.models import table_row
from segpipe.errors import ConfigError, DataError, MissingError
from segpipe.files import sha256_file
from segpipe.release import registry, warm_start
from segpipe.release.bundle import Card
from segpipe.release.warm_start import fetch_trained
from segpipe.workspace.git import git
from tests.worlds.bundles import dvc
from tests.worlds.released_workspace import make


@pytest.mark.slow
def test_the_model_of_a_release(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = root / "models" / "unet"
    model.mkdir(parents=True)
    (model / "weights.safetensors").write_bytes(b"weights of v0.1.0")
    (model / "segmenter.json").write_text("{}")
    sha256 = sha256_file(model / "weights.safetensors")
    dvc(root, "commit", "--quiet", "--force", "train@unet")
    assert make(root) == "v0.1.0"
    record = warm_start.find_version(root, "v0.1.0")
    monkeypatch.setattr(warm_start, "find_version", lambda *_: record.model_copy(update={"weights_sha256": sha256}))
    shutil.rmtree(model)

    folder = fetch_trained(root, "segmenter@v0.1.0")
    assert folder is not None and sorted(p.name for p in folder.iterdir()) == ["segmenter.json", "weights.safetensors"]
    (folder / "weights.safetensors").write_bytes(b"damaged")
    fetch_trained(root, "segmenter@v0.1.0")
    assert sha256_file(folder / "weights.safetensors") == sha256

    monkeypatch.setattr(warm_start, "fetch_out", lambda *_: pytest.fail("fetched again"))
    fetch_trained(root, "segmenter@v0.1.0")
    monkeypatch.setattr(warm_start, "find_version", lambda *_: record)
    monkeypatch.setattr(warm_start, "fetch_out", lambda *_: None)
    with pytest.raises(DataError, match="not those that were released"):
        fetch_trained(root, "segmenter@v0.1.0")


@pytest.mark.slow
def test_a_tag_that_was_moved_and_a_parent_in_the_record(root: Path, bundle: Path) -> None:
    card = Card.read(root / "bundle")
    card.model_copy(update={"lineage": card.lineage | {"parent": "segmenter@v0.0.9"}}).write(root / "bundle")
    dvc(root, "commit", "--quiet", "--force", "export")
    assert make(root) == "v0.1.0"
    assert registry.find_version(root, "v0.1.0").parent == "segmenter@v0.0.9"
    assert table_row(registry.find_version(root, "v0.1.0"))[2] == "unet from segmenter@v0.0.9"
    with pytest.raises(MissingError, match=r"no such version .found v0.2.0, expected one of: v0.1.0.*segpipe models"):
        fetch_trained(root, "segmenter@v0.2.0")
    git(root, "tag", "--force", "segmenter@v0.1.0", "HEAD~1")
    with pytest.raises(MissingError, match=r"holds no release record .found v0.1.0.*moved.*git fetch --tags --force"):
        fetch_trained(root, "segmenter@v0.1.0")


def test_other_sources_than_releases_of_this_workspace(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("candidates: {unet: {family: unet}}\n")
    assert fetch_trained(tmp_path, "auto") is None and fetch_trained(tmp_path, "weights/mine.safetensors") is None
    with pytest.raises(ConfigError, match=r"found other@v0.1.0, expected segmenter@VERSION"):
        fetch_trained(tmp_path, "other@v0.1.0")
    with pytest.raises(MissingError):
        fetch_trained(tmp_path, "segmenter@v7.0.0")

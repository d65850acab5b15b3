"""Tests of versions, stages, promotion and rollback on a real Git and DVC repository."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from segpipe.errors import ConfigError, DataError, GateBlocked, MissingError
from segpipe.files import sha256_bytes
from segpipe.release import promotion, registry
from segpipe.release.bundle import Card, bundle_sha256
from segpipe.release.champion_file import refresh_champion
from segpipe.release.endpoint_file import Endpoint, endpoint_path
from segpipe.release.tags import checked_stage, checked_version, read_tags, version_key
from segpipe.release.verify import verify
from segpipe.workspace.git import commit_paths, git, identity
from tests.worlds.bundles import dvc, run
from tests.worlds.released_workspace import make, produce


@pytest.mark.slow
def test_the_life_of_two_versions(root: Path, bundles: list[Path]) -> None:
    assert (registry.versions(root), promotion.live(root), registry.next_version(root)) == ([], None, "v0.1.0")
    with pytest.raises(MissingError, match="nothing is promoted"):
        promotion.update_endpoint(root)
    assert make(root) == "v0.1.0"
    promotion.promote(root, "v0.1.0")
    assert make(root, bundles[1]) == "v0.2.0"
    assert promotion.live(root) == "v0.1.0", "a release is not live until it is promoted"
    assert refresh_champion(root) is True
    assert json.loads((root / "champion.json").read_text())["bundle_sha256"] == bundle_sha256(bundles[0])
    assert refresh_champion(root) is False
    assert json.loads((root / "reference.json").read_text()) == json.loads((bundles[0] / "reference.json").read_text())

    promotion.promote(root, "v0.2.0")
    assert refresh_champion(root) is True
    assert json.loads((root / "reference.json").read_text()) == json.loads((bundles[1] / "reference.json").read_text())
    endpoint = Endpoint.read(endpoint_path(root, "prod"))
    assert endpoint.version == "v0.2.0"
    assert (
        bundle_sha256(endpoint_path(root, "prod").parent / endpoint.bundle)
        == bundle_sha256(bundles[1])
        == endpoint.bundle_sha256
    )
    assert [(r.version, r.stages) for r in registry.versions(root)] == [("v0.1.0", []), ("v0.2.0", ["prod"])]

    promotion.promote(root, "v0.2.0")
    assert len(read_tags(root, "segmenter").events) == 2, "promoting the live version makes no event"
    assert (
        promotion.rollback(root)
        == "v0.1.0"
        == promotion.live(root)
        == Endpoint.read(endpoint_path(root, "prod")).version
    )
    assert promotion.was_in(root, "v0.2.0", "prod") and not promotion.was_in(root, "v0.2.0", "staging")
    promotion.promote(root, "v0.2.0", "staging")
    assert (promotion.live(root, "prod"), promotion.live(root, "staging")) == ("v0.1.0", "v0.2.0")
    with pytest.raises(MissingError, match=r"before v0\.1\.0, no version was live there"):
        promotion.rollback(root)
    promotion.promote(root, "v0.2.0")
    assert read_tags(root, "segmenter").history("prod") == ["v0.1.0", "v0.2.0", "v0.1.0", "v0.2.0"]

    release = registry.find_version(root, "v0.2.0")
    assert (
        release.score == 0.71 and release.data_hash == "da7a" * 16 and release.bless.p95_ms == 2.5 and release.plan_hash
    )
    card = Card.read(bundles[1])
    assert (release.engine, release.int8) == (card.engine, card.int8) and release.engine
    assert release.commit == git(root, "rev-parse", "segmenter@v0.2.0^{commit}")
    bento = root / ".segpipe" / "built" / "v0.2.0"
    assert json.loads((bento / "src" / "build.json").read_text())["git_commit"] == release.commit
    assert yaml.safe_load((bento / "bento.yaml").read_text())["labels"]["git_commit"] == release.commit
    assert json.loads((root / ".segpipe" / "releases" / "v0.2.0" / "release.json").read_text()) == release.record()


@pytest.mark.slow
def test_rollbacks_go_further_back_and_keep_their_reasons(root: Path, bundles: list[Path]) -> None:
    make(root)
    make(root, bundles[1])
    promotion.promote(root, "v0.1.0")
    promotion.promote(root, "v0.2.0", reason="approved by the lab: {1}")
    promotion.promote(root, "v0.1.0")
    promotion.promote(root, "v0.2.0")
    with pytest.raises(ConfigError, match=r"already live in prod"):
        promotion.rollback(root, version="v0.2.0")
    with pytest.raises(MissingError, match=r"never live in prod.*v0\.9\.0.*segpipe promote v0\.9\.0"):
        promotion.rollback(root, version="v0.9.0")
    back = [promotion.rollback(root, reason='misses small cells\nin "bright" images'), promotion.rollback(root)]
    assert [*back, promotion.rollback(root)] == ["v0.1.0", "v0.2.0", "v0.1.0"], "as they were promoted, backwards"
    with pytest.raises(MissingError, match="no earlier version to return to in prod"):
        promotion.rollback(root)
    assert promotion.rollback(root, version="v0.2.0") == "v0.2.0"

    history = promotion.stage_changes(root)
    assert [change.action for change in history] == ["promote"] * 4 + ["rollback"] * 4
    assert [change.live for change in history] == [f"v0.{n}.0" for n in (1, 2, 1, 2, 1, 2, 1, 2)]
    assert [change.before for change in history] == [None, *(change.live for change in history[:-1])]
    assert history[1].reason == "approved by the lab: {1}"
    assert history[4].reason == 'misses small cells\nin "bright" images'
    assert all(change.by == "segpipe" and change.at.startswith("20") for change in history)


@pytest.mark.slow
def test_gto_and_dvc_read_the_tags(root: Path, bundles: list[Path], tmp_path: Path) -> None:
    gto = str(Path(sys.executable).with_name("gto"))
    make(root)
    promotion.promote(root, "v0.1.0")
    promoted = int(time.time())
    make(root, bundles[1])
    while int(time.time()) == promoted:  # GTO orders events by the second
        time.sleep(0.02)
    promotion.promote(root, "v0.2.0")
    shown = run(root, gto, "show", "segmenter#prod", "--ref")
    assert shown.strip() == "segmenter@v0.2.0"
    dvc(root, "artifacts", "get", ".", "segmenter", "--stage", "prod", "--out", str(tmp_path / "got"))
    assert bundle_sha256(tmp_path / "got") == bundle_sha256(bundles[1])
    # Tags that a user makes with GTO count too, and have the same meaning as in GTO.
    run(root, gto, "deprecate", "segmenter", "v0.2.0", "prod")
    assert promotion.live(root) == "v0.1.0"
    assert run(root, gto, "show", "segmenter#prod", "--ref").strip() == "segmenter@v0.1.0"
    run(root, gto, "deprecate", "segmenter", "v0.1.0", "prod")
    assert promotion.live(root) is None
    assert run(root, gto, "show", "segmenter#prod", "--ref").strip() == ""
    assert promotion.rollback(root) == "v0.1.0", "the version that was live last"


@pytest.mark.slow
def test_a_lost_or_damaged_copy_is_restored_from_the_cache(root: Path, bundles: list[Path]) -> None:
    make(root)
    make(root, bundles[1])
    copy = root / ".segpipe" / "releases" / "v0.1.0"
    shutil.rmtree(copy)
    assert bundle_sha256(registry.release_bundle(root, "v0.1.0")) == bundle_sha256(bundles[0])
    assert (copy / "release.json").exists()
    (copy / "bundle" / "model.onnx").write_bytes(b"damaged")
    assert bundle_sha256(registry.release_bundle(root, "v0.1.0")) == bundle_sha256(bundles[0])
    assert verify(root, "v0.1.0").ok

    shutil.rmtree(copy)
    shutil.rmtree(root / ".dvc" / "cache")
    with pytest.raises(MissingError, match="cannot be fetched"):
        promotion.promote(root, "v0.1.0")
    assert promotion.live(root) is None, "a version that cannot be served is not promoted"
    report = verify(root, "v0.1.0")
    assert not report.ok and "cannot be fetched" in report.lines()[1]


@pytest.mark.slow
def test_a_rebuild_trains_again_by_the_pinned_plan(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are trained again in a clone at the tag, whatever has changed in the workspace since."""
    release = registry.find_version(root, make(root))
    (root / "plans" / "unet.json").write_text('{"another": "plan"}')
    report = verify(root, "v0.1.0", rebuild=True)
    assert [check.ok for check in report.checks] == [True, True, True, False], report.lines()
    expected = sha256_bytes(b"images" + b"{}\n")
    assert f"gives weights {expected[:12]}" in report.lines()[-1]
    monkeypatch.setattr(
        "segpipe.release.verify.find_version", lambda *_: release.model_copy(update={"weights_sha256": expected})
    )
    assert verify(root, "v0.1.0", rebuild=True).ok
    assert not (root / "models").exists() and (root / "plans" / "unet.json").read_text() == '{"another": "plan"}'


@pytest.mark.slow
def test_the_same_model_is_one_version(root: Path, bundle: Path) -> None:
    assert registry.version_of_bundle(root, root / "bundle") is None
    make(root)
    before = git(root, "rev-list", "--all", "--count")
    (root / "bundle" / "engines.json").write_text("[]")  # as if measured again: other timings, the same model
    assert registry.version_of_bundle(root, root / "bundle") == "v0.1.0"
    assert make(root) == "v0.1.0"
    assert git(root, "rev-list", "--all", "--count") == before
    assert [v.version for v in registry.versions(root)] == ["v0.1.0"]


@pytest.mark.slow
def test_a_release_commits_only_the_files_of_the_pipeline(root: Path) -> None:
    (root / "notes.txt").write_text("mine")
    (root / "staged.txt").write_text("mine, staged")
    git(root, "add", "staged.txt")
    (root / "evaluation" / "unet" / "gallery").mkdir(parents=True)
    (root / "evaluation" / "unet" / "metrics.json").write_text("{}")
    (root / "evaluation" / "unet" / "gallery" / "worst.png").write_text("big")
    (root / "training" / "unet").mkdir(parents=True)
    (root / "training" / "unet" / "metrics.json").write_text("{}")
    (root / "plans" / "unet.json").unlink()
    make(root)
    changed = set(git(root, "show", "--name-only", "--format=", "HEAD").splitlines())
    assert changed == {
        "dvc.lock",
        "selection.json",
        ".gitignore",
        "evaluation/unet/metrics.json",
        "training/unet/metrics.json",
        "plans/unet.json",
    }
    assert git(root, "diff", "--cached", "--name-only") == "staged.txt", "files that the user staged stay staged"
    assert git(root, "log", "-1", "--format=%an <%ae>") == "segpipe <segpipe@localhost>"
    assert "iou.dataset.macro 0.7100" in git(root, "log", "-1", "--format=%s")


@pytest.mark.slow
def test_no_release_after_a_failed_gate_or_without_git(root: Path, bundles: list[Path], tmp_path: Path) -> None:
    produce(root, bundles[0], promotable=False)
    with pytest.raises(GateBlocked, match=r"unet may not be released.*found not passed: floor"):
        make(root)
    assert registry.versions(root) == []
    plain_folder = tmp_path / "plain_folder"
    plain_folder.mkdir()
    shutil.copy(root / "params.yaml", plain_folder)
    assert promotion.live(plain_folder) is None and registry.next_version(plain_folder) == "v0.1.0"


@pytest.mark.slow
def test_versions_that_do_not_exist(root: Path) -> None:
    make(root)
    with pytest.raises(MissingError, match=r"v0\.9\.0.*one of: v0\.1\.0"):
        promotion.promote(root, "v0.9.0")
    with pytest.raises(MissingError, match="no earlier version to return to in prod"):
        promotion.rollback(root)
    promotion.promote(root, "v0.1.0")
    with pytest.raises(MissingError, match=r"before v0\.1\.0, no version was live there"):
        promotion.rollback(root)


def test_a_version_before_the_first_release(tmp_path: Path, repo_root: Path) -> None:
    shutil.copy(repo_root / "params.yaml", tmp_path)
    with pytest.raises(MissingError, match=r"no version has been released yet .found v0\.1\.0"):
        registry.find_version(tmp_path, "v0.1.0")


@pytest.mark.parametrize("name", ["../../etc", "v1", "v1.2", "1.2.3", "v1.2.3/..", "v01.2.3", "", "v1.2.3\n"])
def test_text_that_is_not_a_version_never_becomes_a_path(name: str) -> None:
    with pytest.raises(ConfigError, match="not a version"):
        checked_version(name)


@pytest.mark.parametrize("name", ["../prod", "Prod", "", "a/b", "prod\n", "-x"])
def test_text_that_is_not_a_stage_never_becomes_a_path(name: str) -> None:
    with pytest.raises(ConfigError, match="not a stage"):
        checked_stage(name)


def test_versions_are_ordered_by_number(tmp_path: Path) -> None:
    assert version_key("v0.10.0") > version_key("v0.9.5")
    repository = _empty_repository(tmp_path)
    for tag in (
        "segmenter@v0.10.0",
        "segmenter@v0.9.0",
        "other@v3.0.0",
        "segmenter@v0.11.0",
        "segmenter@v0.11.0!",
        "junk",
        "segmenter#prod",
    ):
        git(repository, "tag", tag)
    assert [v.version for v in read_tags(repository, "segmenter").versions] == ["v0.9.0", "v0.10.0"]
    (repository / "params.yaml").write_text("candidates: {unet: {family: unet}}\n")
    assert registry.next_version(repository) == "v0.11.0"
    assert registry.versions(repository) == [], "tags that segpipe did not make have no record"


def test_a_commit_has_new_changed_and_deleted_files(tmp_path: Path) -> None:
    repository = _empty_repository(tmp_path)
    for name in ("kept.txt", "gone.txt"):
        (repository / name).write_text(name)
    first = commit_paths(repository, ["*.txt"], "two files")
    assert commit_paths(repository, ["*.txt"], "nothing new") == first
    (repository / "gone.txt").unlink()
    (repository / "new[1].txt").write_text("a name with a pattern in it")
    assert commit_paths(repository, ["*.txt"], "one removed, one added") != first
    assert git(repository, "ls-files").splitlines() == ["kept.txt", "new[1].txt"]
    assert commit_paths(repository, ["*.txt"], "on request", allow_empty=True) != git(repository, "rev-parse", "HEAD~1")
    git(repository, "config", "user.name", "Ada")
    assert identity(repository) == {"user.name": "Ada", "user.email": "segpipe@localhost"}


def test_a_bundle_that_is_not_the_released_one(bundle: Path) -> None:
    from segpipe.release.bundle import check_bundle

    check_bundle(bundle, bundle_sha256(bundle))
    with pytest.raises(DataError, match="not the one that was released"):
        check_bundle(bundle, "0" * 64)


def _empty_repository(folder: Path) -> Path:
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    git(folder, "commit", "-q", "--allow-empty", "-m", "x", options=["-c", "user.name=a", "-c", "user.email=a@b"])
    return folder

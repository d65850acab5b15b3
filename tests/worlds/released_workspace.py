"""Fixtures: bundles of two toy models, and a workspace whose pipeline produced one of them. Each is made once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from segpipe.files import write_json, write_text
from segpipe.release import registry
from segpipe.release.packaging.blessing import BlessReport
from segpipe.workspace.git import git
from tests.worlds.bundles import dvc, toy_selection, write_toy_bundle


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two bundles with different predictions."""
    folder = tmp_path_factory.mktemp("bundles")
    return [write_toy_bundle(folder / f"bundle-{seed}", seed) for seed in (0, 1)]


@pytest.fixture(scope="session")
def bundle(bundles: list[Path]) -> Path:
    """The first bundle."""
    return bundles[0]


DVC_YAML = """
stages:
  export:
    cmd: echo produced elsewhere
    deps: [selection.json]
    outs: [bundle]
  ingest: {cmd: echo ingest, deps: [data]}
  validate: {cmd: echo validate, deps: [data]}
  prepare: {cmd: echo prepare, deps: [data]}
  train:
    foreach: [unet]
    do:
      cmd: mkdir -p models/${item} && cat data/x.txt plans/${item}.json > models/${item}/weights.safetensors
      deps: [data, "plans/${item}.json"]
      outs: ["models/${item}"]
artifacts:
  segmenter: {path: bundle, type: model}
"""


@pytest.fixture(scope="module", autouse=True)
def no_git_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An environment in which Git knows no user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
        patch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
        patch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path_factory.mktemp("site")))
        yield


@pytest.fixture(scope="module")
def template(no_git_user: None, tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Path:
    """A workspace whose pipeline has just produced the first bundle."""
    folder = tmp_path_factory.mktemp("template")
    git(folder, "init", "--quiet", "--initial-branch", "main")
    dvc(folder, "init", "--quiet")
    (folder / "params.yaml").write_text("candidates: {unet: {family: unet}}\n")
    (folder / "dvc.yaml").write_text(DVC_YAML)
    (folder / ".gitignore").write_text("/.segpipe/\n")
    (folder / "champion.json").write_text('{"version": null}\n')
    (folder / "plans").mkdir()
    (folder / "plans" / "unet.json").write_text("{}\n")
    (folder / "data").mkdir()
    (folder / "data" / "x.txt").write_text("images")
    dvc(folder, "add", "--quiet", "data")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "start", options=["-c", "user.name=a", "-c", "user.email=a@b"])
    produce(folder, bundle)
    return folder


@pytest.fixture
def root(tmp_path: Path, template: Path) -> Path:
    """A copy of that workspace."""
    return Path(shutil.copytree(template, tmp_path / "work space"))


def produce(root: Path, bundle: Path, promotable: bool = True) -> None:
    """Write what a run of the pipeline with this bundle leaves behind."""
    toy_selection(promotable, summary=f"from {bundle.name}").write(root / "selection.json")
    shutil.rmtree(root / "bundle", ignore_errors=True)
    shutil.copytree(bundle, root / "bundle")
    dvc(root, "commit", "--quiet", "--force", "export")


def make(root: Path, bundle: Path | None = None) -> str:
    """Release the bundle in bundle/, or another one after `produce`, and return its version."""
    if bundle is not None:
        produce(root, bundle)
    version = registry.next_version(root)
    report = BlessReport(
        bento=f"segmenter:{version}",
        images=3,
        pixels=9,
        differing_pixels=0,
        requests=24,
        p50_ms=1.5,
        p95_ms=2.5,
        startup_s=3.0,
    )
    bento = root / ".segpipe" / "built" / version
    (bento / "src").mkdir(parents=True)
    write_json(bento / "src" / "build.json", {"version": version, "git_commit": "of the run"})
    write_text(bento / "bento.yaml", "labels: {git_commit: of the run}\n")
    return registry.release(root, version, report, bento).version

"""Tests of the Bento: it is built, served, and compared with its golden images."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from segpipe.errors import GateBlocked, MissingError
from segpipe.release.packaging.bento import bento_path, build_bento, pin_packages
from segpipe.release.packaging.blessing import bless

DEPLOYED_WITHOUT = ("torch", "dvc", "prefect", "pandas", "albumentations", "great-expectations", "lightning")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, bundle: Path, repo_root: Path) -> Path:
    root = tmp_path_factory.mktemp("work space")
    shutil.copytree(bundle, root / "bundle")
    shutil.copy(repo_root / "bentofile.yaml", root)
    (root / "params.yaml").write_text("candidates: {unet: {family: unet}}\n")
    return root


@pytest.fixture(scope="module")
def bento(workspace: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("BENTOML_HOME", raising=False)
        return build_bento(workspace, "v0.1.0")


@pytest.mark.slow
def test_a_bento_contains_all_that_it_needs(bento: Path, workspace: Path, bundle: Path) -> None:
    from segpipe.release.bundle import bundle_sha256

    assert bento == bento_path(workspace, "v0.1.0") and bento.is_relative_to(workspace / ".segpipe" / "bentoml")
    manifest = yaml.safe_load((bento / "bento.yaml").read_text())
    assert manifest["labels"] == {"version": "v0.1.0", "git_commit": "none", "data_hash": "da7a" * 16}
    assert bundle_sha256(bento / "src" / "bundle") == bundle_sha256(bundle)
    assert json.loads((bento / "src" / "build.json").read_text())["version"] == "v0.1.0"
    assert (bento / "src" / "segpipe" / "serving" / "page" / "index.html").exists()
    assert not list(bento.rglob("__pycache__")) and not (bento / "src" / "tests").exists()
    requirements = (bento / "env" / "python" / "requirements.txt").read_text().splitlines()
    assert not [line for line in requirements if line.startswith(DEPLOYED_WITHOUT)]
    assert all("==" in line for line in requirements), "the versions that it was blessed with"
    assert build_bento(workspace, "v0.1.0") == bento, "a second build replaces the first"


@pytest.mark.slow
def test_a_bento_is_blessed(bento: Path, bundle: Path) -> None:
    report = bless(bento, bundle)
    assert report.bento == "segmenter:v0.1.0"
    assert (report.images, report.differing_pixels) == (3, 0) and report.pixels > 0
    assert report.requests >= 1 and 0 < report.p50_ms <= report.p95_ms


@pytest.mark.slow
def test_a_bento_with_other_masks_is_not_blessed(bento: Path, bundles: list[Path], tmp_path: Path) -> None:
    with pytest.raises(GateBlocked, match="another model"):
        bless(bento, bundles[1])
    changed = tmp_path / "bundle"
    shutil.copytree(bundles[0], changed)
    shutil.copytree(bundles[1] / "golden", changed / "golden", dirs_exist_ok=True)  # the masks of the other model
    with pytest.raises(GateBlocked, match=r"golden masks.*pixels differ, the most in [\d,]+ pixels of input-\d\.png"):
        bless(bento, changed)


@pytest.mark.slow
def test_a_bento_imports_its_own_copy_of_segpipe(bento: Path) -> None:
    script = "import segpipe, segpipe.serving.settings as s; print(segpipe.__file__); print(s.Settings.from_environment({}).bundle)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd="/",
        env={"PYTHONPATH": str(bento / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [str(bento / "src" / "segpipe" / "__init__.py"), str(bento / "src" / "bundle")]


def test_errors_of_build(tmp_path: Path, repo_root: Path) -> None:
    (tmp_path / "params.yaml").write_text("candidates: {unet: {family: unet}}\n")
    with pytest.raises(MissingError, match=r"bentofile\.yaml"):
        build_bento(tmp_path, "v0.1.0")
    shutil.copy(repo_root / "bentofile.yaml", tmp_path)
    with pytest.raises(MissingError, match="no model bundle"):
        build_bento(tmp_path, "v0.1.0")


def test_packages_are_pinned_to_the_installed_versions() -> None:
    import numpy

    pinned = yaml.safe_load(
        pin_packages("service: x\npython:\n  packages: [numpy>=2, 'no-such-package>=1', fastapi<0.151]\n")
    )
    assert pinned["python"]["packages"][:2] == [f"numpy=={numpy.__version__}", "no-such-package>=1"]
    assert pinned["service"] == "x"


def test_local_versions_are_not_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package index has no torch 2.9.0+cpu."""
    monkeypatch.setattr("segpipe.release.packaging.bento.importlib.metadata.version", lambda _: "2.9.0+cpu")
    assert yaml.safe_load(pin_packages("python: {packages: []}", ["torch"]))["python"]["packages"] == ["torch==2.9.0"]


def test_the_bentofile_names_dependencies_of_segpipe(repo_root: Path) -> None:
    """Every package of the bentofile is a dependency of segpipe, with the same version range."""
    import tomllib

    declared = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]["dependencies"]
    packages = yaml.safe_load((repo_root / "bentofile.yaml").read_text())["python"]["packages"]
    assert set(packages) <= set(declared), set(packages) - set(declared)

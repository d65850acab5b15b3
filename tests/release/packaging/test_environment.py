"""Tests of the environments of Bentos: made once, made again after an interruption, removed when they are old."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from segpipe.errors import MissingError
from segpipe.release.packaging.environment import environment_mb, environment_python


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the environments."""
    monkeypatch.setenv("SEGPIPE_BENTO_ENVIRONMENTS", str(tmp_path / "environments"))
    return tmp_path / "environments"


def bento_that_requires(root: Path, *requirements: str) -> Path:
    (root / "env" / "python").mkdir(parents=True, exist_ok=True)
    (root / "env" / "python" / "requirements.txt").write_text("\n".join(requirements))
    return root


def importable(python: Path, package: str) -> bool:
    return subprocess.run([python, "-Ic", f"import {package}"], check=False, capture_output=True).returncode == 0


def test_an_environment_has_only_what_the_bento_requires_and_is_made_once(tmp_path: Path) -> None:
    bento = bento_that_requires(tmp_path / "bento", "filelock==3.16.1", "packaging==24.2")
    python = environment_python(bento)
    assert importable(python, "filelock") and not importable(python, "numpy")
    assert 0 < environment_mb(python) < 100
    stamp = (python.parents[1] / "pyvenv.cfg").stat().st_mtime_ns
    other = bento_that_requires(tmp_path / "other", "packaging==24.2", "filelock==3.16.1")
    assert environment_python(other) == python, "the same requirements in another order"
    assert (python.parents[1] / "pyvenv.cfg").stat().st_mtime_ns == stamp


def test_an_interrupted_installation_is_repeated(tmp_path: Path) -> None:
    bento = bento_that_requires(tmp_path / "bento", "packaging==24.2")
    python = environment_python(bento)
    (python.parents[1] / "complete").unlink()
    package = next((python.parents[1] / "lib").glob("*/site-packages/packaging"))
    (package / "__init__.py").unlink()
    (package / "version.py").unlink()
    assert importable(environment_python(bento), "packaging.version")


def test_a_package_that_cannot_be_installed_is_named(tmp_path: Path, folder: Path) -> None:
    bento = bento_that_requires(tmp_path / "bento", "packaging==0.0.0.1")
    with pytest.raises(
        MissingError, match=r"cannot be installed.*packaging==0\.0\.0\.1.*Fix: connect to the package index"
    ):
        environment_python(bento)
    assert not list(folder.glob("*/complete"))


def test_environments_that_were_used_longest_ago_are_removed(tmp_path: Path, folder: Path) -> None:
    for number in range(6):
        environment = folder / f"old-{number}"
        environment.mkdir(parents=True)
        (environment / "complete").touch()
        os.utime(environment / "complete", (number, number))
    python = environment_python(bento_that_requires(tmp_path / "bento", "packaging==24.2"))
    remaining = {path.parent.name for path in folder.glob("*/complete")}
    assert remaining == {"old-3", "old-4", "old-5", python.parents[1].name}

"""The environment of a Bento: the packages that it requires, installed apart from those of the workspace.

A Bento in a container has only these packages. The blessing serves it with them too, so that a requirement that is missing or wrong is
found before the release. Environments are kept by their requirements: the next version with the same ones needs no installation.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

from segpipe.errors import MissingError
from segpipe.files import read_bytes, sha256_bytes, user_cache, write_text

VARIABLE = "SEGPIPE_BENTO_ENVIRONMENTS"
"""The environment variable that names another folder for the environments."""
_KEPT = 4
"""Number of environments that are kept; those that were used longest ago are removed."""
_COMPLETE = "complete"
"""The file that marks an environment whose installation has ended."""


def environments_folder() -> Path:
    """Return the folder of the environments: `~/.cache/segpipe/bento-environments`, or as `SEGPIPE_BENTO_ENVIRONMENTS` says."""
    setting = os.environ.get(VARIABLE)
    return Path(setting) if setting else user_cache("bento-environments")


def environment_python(bento: Path) -> Path:
    """Return the Python interpreter of the environment of a Bento. The environment is made if it does not exist.

    Args:
        bento: the folder of the Bento.

    Returns:
        The path of the interpreter.

    Raises:
        MissingError: the packages cannot be installed.
    """
    from filelock import FileLock

    requirements = bento / "env" / "python" / "requirements.txt"
    text = read_bytes(requirements, 1 << 20).decode()
    options = _torch_options(text)
    key = sha256_bytes("\n".join([sys.version, sys.executable, *options, *sorted(text.split())]).encode())[:16]
    folder = environments_folder()
    environment = folder / key
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{key}.lock"):
        if not (environment / _COMPLETE).exists():
            shutil.rmtree(environment, ignore_errors=True)  # left over from an installation that was interrupted
            _install(requirements, environment, options)
            write_text(environment / _COMPLETE, text)
        os.utime(environment / _COMPLETE)
    _remove_old(folder, environment)
    return environment / "bin" / "python"


def environment_mb(python: Path) -> float:
    """Return the size in MiB of the files of an environment.

    Args:
        python: the interpreter of the environment.
    """
    files = (file for file in python.parents[1].rglob("*") if file.is_file() and not file.is_symlink())
    return sum(file.stat().st_size for file in files) / 2**20


def _install(requirements: Path, environment: Path, options: list[str]) -> None:
    _uv(["venv", "--quiet", "--python", sys.executable, str(environment)], requirements)
    python = str(environment / "bin" / "python")
    _uv(["pip", "install", "--quiet", "--python", python, *options, "-r", str(requirements)], requirements)


def _uv(arguments: list[str], requirements: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "uv", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise MissingError(
            f"the packages of the Bento cannot be installed: {' '.join(done.stderr.split())[-400:]}",
            where=requirements,
            fix="connect to the package index, or correct `packages` in bentofile.yaml, and repeat the command",
        )


def _torch_options(requirements: str) -> list[str]:
    """Return the option that installs the same build of torch as this process uses, if the Bento needs torch."""
    if not any(line.startswith("torch==") for line in requirements.splitlines()):
        return []
    import torch

    build = torch.__version__.partition("+")[2]
    is_build_of_torch_index = "+" in importlib.metadata.version("torch")
    return ["--torch-backend", build] if is_build_of_torch_index else []


def _remove_old(folder: Path, used: Path) -> None:
    """Remove all environments but those that were used last."""
    complete = sorted(folder.glob(f"*/{_COMPLETE}"), key=lambda file: file.stat().st_mtime, reverse=True)
    for marker in complete[_KEPT:]:
        if marker.parent != used:
            marker.unlink()
            with contextlib.suppress(OSError):  # a server may still run in it
                shutil.rmtree(marker.parent)

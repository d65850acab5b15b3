"""A Bento: the bundle, segpipe's own source and the versions of what they need, in one folder that serves by itself."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

import segpipe
from segpipe.config import load_params
from segpipe.errors import MissingError, SegpipeError
from segpipe.files import read_bytes, write_json, write_text
from segpipe.inference.spec import TORCH, SegmenterSpec
from segpipe.release.bento_server import bentoml_environment
from segpipe.release.bundle import BUILD_FILE, Card
from segpipe.release.tags import checked_version
from segpipe.workspace.git import head, is_repository

BENTOFILE = "bentofile.yaml"


def bentoml_home(root: Path) -> Path:
    """Where the workspace keeps its Bentos, unless the user's BENTOML_HOME says otherwise."""
    return Path(bentoml_environment(root.resolve() / ".segpipe" / "bentoml")["BENTOML_HOME"])


def bento_path(root: Path, version: str) -> Path:
    """Where the Bento of a version lies, built or not."""
    return bentoml_home(root) / "bentos" / load_params(root).release.name / checked_version(version)


def build_bento(root: Path, version: str) -> Path:
    """Build the Bento of `root/bundle` as a version, by the workspace's bentofile.yaml, and return its folder.

    A Bento of that version that is there already (from a run that did not get to its release) is replaced.
    """
    target, home = bento_path(root, version), bentoml_home(root)
    home.mkdir(parents=True, exist_ok=True)
    # BentoML builds nothing under a folder whose name begins with a dot, hence not under .segpipe.
    with tempfile.TemporaryDirectory(prefix="segpipe-build-") as folder:
        labels = _write_context(root, version, Path(folder))
        shutil.rmtree(target, ignore_errors=True)
        name = ["--name", target.parent.name, "--version", version]
        labelled = [part for key, value in labels.items() for part in ("--label", f"{key}={value}")]
        done = subprocess.run(
            [sys.executable, "-m", "bentoml", "build", folder, *name, *labelled],
            env=bentoml_environment(home),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode or not target.is_dir():
        said = " ".join((done.stdout + done.stderr).split())[-800:]
        raise SegpipeError(f"bentoml build failed: {said}", where=root / BENTOFILE)
    return target


def _write_context(root: Path, version: str, context: Path) -> dict[str, str]:
    """Write what the Bento is built from, and return its labels: version, commit that it was built on, data hash."""
    bentofile = root / BENTOFILE
    if not bentofile.exists():
        raise MissingError(
            "no bentofile.yaml in this workspace", where=root, fix="copy it from a workspace that `segpipe init` makes"
        )
    labels = {"version": version, "git_commit": head(root) if is_repository(root) else "none"}
    labels["data_hash"] = Card.read(root / "bundle").data_hash
    shutil.copytree(root / "bundle", context / "bundle")
    source = Path(segpipe.__file__).parent
    shutil.copytree(source, context / "segpipe", ignore=shutil.ignore_patterns("__pycache__", "template"))
    write_json(context / BUILD_FILE, labels)
    more = extra_packages(SegmenterSpec.read(root / "bundle"))
    write_text(context / BENTOFILE, pin_packages(read_bytes(bentofile, 1 << 20).decode(), more))
    return labels


_FOR_OBJECTS = ("scikit-image", "scipy")
_FOR_VOLUMES = ("nibabel", "scipy")
_FOR_TORCH = ("torch", "torchvision", "timm", "segmentation-models-pytorch", "safetensors")


def extra_packages(spec: SegmenterSpec) -> tuple[str, ...]:
    """What a model needs beside what every model needs: to tell objects apart, to read and resample volumes, and torch where
    it is the engine."""
    parts = {_FOR_OBJECTS: spec.postprocess is not None, _FOR_VOLUMES: spec.dims == 3, _FOR_TORCH: spec.engine == TORCH}
    return tuple(dict.fromkeys(package for packages, needed in parts.items() if needed for package in packages))


def pin_packages(bentofile: str, more: Sequence[str] = ()) -> str:
    """The text of a bentofile with each package of `python.packages`, and of `more`, at the version that is installed here.

    A Bento carries what it was blessed with. A package that is not installed here keeps the range it has.
    """
    content = yaml.safe_load(bentofile)
    packages = [*content.get("python", {}).get("packages", []), *more]
    content.setdefault("python", {})["packages"] = [_pinned(package) for package in packages]
    return yaml.safe_dump(content, sort_keys=False)


def _pinned(requirement: str) -> str:
    name = re.match(r"[\w.-]+(\[[\w,.-]+\])?", requirement)
    if name is None:
        return requirement
    try:
        return f"{name[0]}=={importlib.metadata.version(name[0].split('[')[0])}"
    except importlib.metadata.PackageNotFoundError:
        return requirement

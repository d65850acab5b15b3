"""Build a Bento: a folder that serves a model by itself, with the bundle, segpipe's source and pinned packages."""

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
from segpipe.files import read_bytes, read_json, write_json, write_text
from segpipe.inference.spec import TORCH, SegmenterSpec
from segpipe.release.bundle import BUILD_FILE, Card
from segpipe.release.packaging.bento_server import bentoml_environment
from segpipe.release.tags import checked_version
from segpipe.workspace.git import head, is_repository
from segpipe.workspace.paths import Paths

BENTOFILE = "bentofile.yaml"
_MANIFEST = "bento.yaml"
_COMMIT = "git_commit"
"""The label of a Bento, and the key of build.json, that holds its commit."""


def bentoml_home(root: Path) -> Path:
    """Return the folder in which a workspace keeps its Bentos: `.segpipe/bentoml`, or the user's BENTOML_HOME if it is set.

    Args:
        root: the workspace.
    """
    return Path(bentoml_environment(Paths(root.resolve()).state / "bentoml")["BENTOML_HOME"])


def bento_path(root: Path, version: str) -> Path:
    """Return the folder of the Bento of a version, whether it was built or not."""
    return bentoml_home(root) / "bentos" / load_params(root).release.name / checked_version(version)


def build_bento(root: Path, version: str) -> Path:
    """Build the Bento of `root/bundle` with the workspace's bentofile.yaml.

    An existing Bento of that version is replaced: it is left over from a run that did not complete its release.

    Args:
        root: the workspace.
        version: the version to build, such as "v0.2.0".

    Returns:
        The folder of the Bento.

    Raises:
        MissingError: there is no bentofile.yaml or no bundle.
        SegpipeError: BentoML failed.
    """
    target, home = bento_path(root, version), bentoml_home(root)
    home.mkdir(parents=True, exist_ok=True)
    # BentoML does not build below a folder whose name begins with a dot, so not below .segpipe.
    with tempfile.TemporaryDirectory(prefix="segpipe-build-") as folder:
        labels = _write_context(root, version, Path(folder))
        shutil.rmtree(target, ignore_errors=True)
        name_options = ["--name", target.parent.name, "--version", version]
        label_options = [part for key, value in labels.items() for part in ("--label", f"{key}={value}")]
        done = subprocess.run(
            [sys.executable, "-m", "bentoml", "build", folder, *name_options, *label_options],
            env=bentoml_environment(home),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode or not target.is_dir():
        output = " ".join((done.stdout + done.stderr).split())[-800:]
        raise SegpipeError(f"bentoml build failed: {output}", where=root / BENTOFILE)
    return target


def record_commit(bento: Path, commit: str) -> None:
    """Write the commit of its release into a Bento, which is built and blessed before that commit exists.

    Args:
        bento: the folder of the Bento.
        commit: the commit of the release.
    """
    build, manifest = bento / "src" / BUILD_FILE, bento / _MANIFEST
    write_json(build, read_json(build) | {_COMMIT: commit})
    content = yaml.safe_load(read_bytes(manifest, 1 << 24))
    content["labels"][_COMMIT] = commit
    write_text(manifest, yaml.safe_dump(content, sort_keys=False))


def _write_context(root: Path, version: str, context: Path) -> dict[str, str]:
    """Write the build context, and return the labels of the Bento: version, current commit (until `record_commit`), data hash."""
    bentofile, bundle = root / BENTOFILE, Paths(root).bundle
    if not bentofile.exists():
        raise MissingError(
            "no bentofile.yaml in this workspace", where=root, fix="copy it from a workspace that `segpipe init` makes"
        )
    labels = {"version": version, _COMMIT: head(root) if is_repository(root) else "none"}
    labels["data_hash"] = Card.read(bundle).data_hash
    shutil.copytree(bundle, context / "bundle")
    source = Path(segpipe.__file__).parent
    shutil.copytree(source, context / "segpipe", ignore=shutil.ignore_patterns("__pycache__", "template"))
    write_json(context / BUILD_FILE, labels)
    packages = extra_packages(SegmenterSpec.read(bundle))
    write_text(context / BENTOFILE, pin_packages(read_bytes(bentofile, 1 << 20).decode(), packages))
    return labels


_INSTANCE_PACKAGES = ("scikit-image", "scipy")
_VOLUME_PACKAGES = ("nibabel", "scipy")
_TORCH_PACKAGES = ("torch", "torchvision", "timm", "segmentation-models-pytorch", "safetensors")


def extra_packages(spec: SegmenterSpec) -> tuple[str, ...]:
    """List the packages that only some models need: to separate instances, to read and resample volumes, or to run on torch."""
    needed = {
        _INSTANCE_PACKAGES: spec.postprocess is not None,
        _VOLUME_PACKAGES: spec.dims == 3,
        _TORCH_PACKAGES: spec.engine == TORCH,
    }
    return tuple(dict.fromkeys(package for packages, used in needed.items() if used for package in packages))


def pin_packages(bentofile: str, extra: Sequence[str] = ()) -> str:
    """Pin the packages of a bentofile to the installed versions, so that a Bento serves with the versions that it was tested with.

    Args:
        bentofile: the text of a bentofile.yaml.
        extra: further packages to add to `python.packages`.

    Returns:
        The text of the new bentofile. A package that is not installed keeps its version range.
    """
    content = yaml.safe_load(bentofile)
    packages = [*content.get("python", {}).get("packages", []), *extra]
    content.setdefault("python", {})["packages"] = [_pin(package) for package in packages]
    return yaml.safe_dump(content, sort_keys=False)


def _pin(requirement: str) -> str:
    name = re.match(r"[\w.-]+(\[[\w,.-]+\])?", requirement)
    if name is None:
        return requirement
    try:
        version = importlib.metadata.version(name[0].split("[")[0])
        return (
            f"{name[0]}=={version.partition('+')[0]}"  # a package index does not have a local version such as 2.9.0+cpu
        )
    except importlib.metadata.PackageNotFoundError:
        return requirement

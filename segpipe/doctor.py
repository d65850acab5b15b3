"""Check the machine and the workspace: each check has a verdict and, if it is not `ok`, a fix."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from segpipe.errors import SegpipeError
from segpipe.words import listed
from segpipe.workspace.devices import gpus, query_gpus

Verdict = Literal["ok", "warn", "fail"]

MIN_PYTHON = (3, 11)
LISTED_LIBRARIES = ("torch", "segmentation-models-pytorch", "dvc", "prefect", "bentoml", "openvino", "onnxruntime")
"""Libraries whose version is shown in a separate line. The others are only compared with the versions that segpipe requires."""


@dataclass(frozen=True)
class Check:
    """The result of one check: its subject, a verdict, what was found and, if the verdict is not `ok`, what to do."""

    name: str
    verdict: Verdict
    found: str
    fix: str | None = None


def _check(name: str, passed: bool, found: str, fix: str, otherwise: Verdict = "warn") -> Check:
    """Return a check with the verdict `ok` if it passed, else with the verdict `otherwise` and the fix."""
    return Check(name, "ok", found) if passed else Check(name, otherwise, found, fix)


def examine(root: Path | None) -> list[Check]:
    """Run all checks. None of them changes anything.

    Args:
        root: the workspace to check; None checks only the machine.
    """
    checks = [*_python(), *_libraries(), *_tools(), *_processors(), *_memory(), *_disk(root or Path.cwd())]
    return checks + ([*_workspace(root)] if root else [])


def _python() -> Iterator[Check]:
    version = platform.python_version()
    minimum = ".".join(map(str, MIN_PYTHON))
    found = f"{version} on {platform.platform(terse=True)}"
    yield _check("python", sys.version_info >= MIN_PYTHON, found, f"use Python {minimum} or later", "fail")


def _libraries() -> Iterator[Check]:
    """Compare the installed libraries with segpipe's requirements: a wrong version causes errors that are hard to understand."""
    from packaging.requirements import Requirement

    yield Check("segpipe", "ok", metadata.version("segpipe"))
    n_wrong = 0
    requirements = [Requirement(text) for text in metadata.requires("segpipe") or []]
    for requirement in requirements:
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        fix = f'pip install "{requirement}", or make setup'
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            n_wrong += 1
            yield Check(requirement.name, "fail", "not installed", fix)
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            n_wrong += 1
            yield Check(requirement.name, "fail", f"{version}, segpipe needs {requirement.specifier}", fix)
        elif requirement.name in LISTED_LIBRARIES:
            yield Check(requirement.name, "ok", version)
    if not n_wrong:
        yield Check("requirements", "ok", "all libraries have versions that segpipe supports")


def _tools() -> Iterator[Check]:
    done = shutil.which("git") and subprocess.run(["git", "--version"], capture_output=True, text=True, check=False)
    if not done or done.returncode:
        yield Check("git", "fail", "not installed", "install Git: every workspace is a Git repository")
        return
    version = done.stdout.removeprefix("git version").strip()
    numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
    yield _check("git", numbers >= (2, 28), version, "install Git 2.28 or later", "fail")


def _processors() -> Iterator[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    slow = "training on one core is slow: raise train.budget, or use another machine"
    yield _check("processors", cores >= 2, f"{cores} core(s)", slow)
    for index, name, memory in query_gpus():
        yield Check(f"gpu {index}", "ok", f"{name}, {memory}")
    if gpus():
        import torch

        available = torch.cuda.is_available()
        found = f"torch {torch.__version__} {'finds' if available else 'does not find'} a GPU"
        yield _check("cuda", available, found, "install a build of torch for the CUDA version of the driver", "fail")
    else:
        yield _bfloat16()


def _bfloat16() -> Check:
    """Check whether the processor computes in bfloat16, which makes training several times faster."""
    flags = _cpu_flags()
    fast_flags = [flag for flag in ("amx_bf16", "avx512_bf16", "avx_ne_convert", "bf16") if flag in flags]
    found = f"in hardware ({', '.join(fast_flags)})" if fast_flags else "not in hardware, and there is no GPU"
    slow = "training is about 2 to 5 times slower here than with AVX-512-BF16 or AMX: raise train.budget, or use another machine"
    return _check("bfloat16", bool(fast_flags), found, slow)


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux: `segpipe plan` measures it
        return set()
    match = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.MULTILINE)
    return set(match[1].split()) if match else set()


def _memory() -> Iterator[Check]:
    import psutil

    memory = psutil.virtual_memory()
    found = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"
    yield _check("memory", memory.total >= 6 << 30, found, "with less than 6 GiB, lower train.batch and train.patch")


def _disk(folder: Path) -> Iterator[Check]:
    free = shutil.disk_usage(folder).free / 2**30
    fix = (
        "free some space: models, shards and the DVC cache grow with each run (dvc gc --workspace removes old versions)"
    )
    yield _check("disk", free > 10, f"{free:.1f} GiB free in {folder}", fix, "warn" if free > 2 else "fail")


# --- the workspace ---------------------------------------------------------------------------------------------------------


def _workspace(root: Path) -> Iterator[Check]:
    checks = {
        "params.yaml": _params,
        "git state": _git_state,
        "data": _data,
        "pipeline": _pipeline,
        "dvc remote": _remote,
        "live": _live,
    }
    for name, check in checks.items():
        yield _guarded(name, check, root)


def _guarded(name: str, check: Callable[[Path], Check], root: Path) -> Check:
    """Run a check of the workspace; an error becomes a failed check."""
    try:
        return check(root)
    except SegpipeError as error:
        return Check(name, "fail", error.what, error.fix)


def _params(root: Path) -> Check:
    from segpipe.config import load_params
    from segpipe.models.registry import family_config

    params = load_params(root)
    for candidate in params.candidates.values():
        family_config(candidate)
    return Check(
        "params.yaml", "ok", f"candidates: {', '.join(params.candidates)}; budget of each: {params.train.budget}"
    )


def _git_state(root: Path) -> Check:
    from segpipe.workspace.git import git
    from segpipe.workspace.root import check_repository

    check_repository(root)
    changed = git(root, "status", "--porcelain").splitlines()
    if changed:
        found = f"{len(changed)} uncommitted change(s); a release commits those of the pipeline"
        return Check("git state", "ok", found)
    return Check("git state", "ok", f"clean at {git(root, 'rev-parse', '--short', 'HEAD')}")


def _data(root: Path) -> Check:
    from segpipe.workspace.pipeline import data_state

    state = data_state(root)
    descriptions = {
        "clean": "data/ matches data.dvc",
        "changed": "data/ differs from data.dvc, or is not in the DVC cache yet: `segpipe run` adds it",
        "untracked": "data/ is not versioned yet: `segpipe run` adds it to DVC",
        "missing": "there is data.dvc, but no data/: `segpipe run` restores it from the DVC cache or a remote",
        "absent": "no data",
    }
    return _check("data", state != "absent", descriptions[state], "segpipe data import SRC, or segpipe data demo")


def _pipeline(root: Path) -> Check:
    from segpipe.workspace.pipeline import graph, stale

    stages, stale_stages = graph(root), stale(root)
    state = f"stale: {listed(stale_stages, 4)}" if stale_stages else "all up to date"
    return Check("pipeline", "ok", f"{len(stages)} stages, {state}")


def _remote(root: Path) -> Check:
    from segpipe.workspace.pipeline import remotes

    urls = remotes(root)
    found = (
        ", ".join(f"{name} ({url})" for name, url in urls.items()) or "none: data and models are on this machine only"
    )
    return _check("dvc remote", bool(urls), found, "dvc remote add -d NAME URL && dvc push")


def _live(root: Path) -> Check:
    from segpipe.config import load_params
    from segpipe.release.promotion import live

    stage = load_params(root).release.stage
    return Check("live", "ok", f"{stage}: {live(root, stage) or 'no version yet'}")

"""What this machine and this workspace are good for: each finding with a verdict and, where it is none of the best, the fix."""

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
from segpipe.words import counted, listed
from segpipe.workspace.devices import gpus, query_gpus

Verdict = Literal["ok", "warn", "fail"]

MIN_PYTHON = (3, 11)
SHOWN = ("torch", "segmentation-models-pytorch", "dvc", "prefect", "bentoml", "openvino", "onnxruntime")
"""Libraries whose version is worth a line of its own; all others are only held against what segpipe asks for."""


@dataclass(frozen=True)
class Check:
    """One finding: its subject, a verdict, what was found, and what to do where that is not `ok`."""

    name: str
    verdict: Verdict
    found: str
    fix: str | None = None


def _judged(name: str, good: bool, found: str, fix: str, otherwise: Verdict = "warn") -> Check:
    """`ok` where it is good; else `otherwise`, with the fix."""
    return Check(name, "ok", found) if good else Check(name, otherwise, found, fix)


def examine(root: Path | None) -> list[Check]:
    """All checks of the machine and, where `root` is a workspace, of it. None of them changes anything."""
    checks = [*_python(), *_libraries(), *_tools(), *_processors(), *_memory(), *_disk(root or Path.cwd())]
    return checks + ([*_workspace(root)] if root else [])


def _python() -> Iterator[Check]:
    version = platform.python_version()
    wanted = ".".join(map(str, MIN_PYTHON))
    found = f"{version} on {platform.platform(terse=True)}"
    yield _judged("python", sys.version_info >= MIN_PYTHON, found, f"use Python {wanted} or later", "fail")


def _libraries() -> Iterator[Check]:
    """segpipe's own requirements against what is installed: a pin that is not kept makes faults that are hard to read."""
    from packaging.requirements import Requirement

    yield Check("segpipe", "ok", metadata.version("segpipe"))
    wrong = 0
    requirements = [Requirement(text) for text in metadata.requires("segpipe") or []]
    for requirement in requirements:
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        fix = f'pip install "{requirement}", or make setup'
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong += 1
            yield Check(requirement.name, "fail", "is not installed", fix)
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong += 1
            yield Check(requirement.name, "fail", f"{version}, segpipe needs {requirement.specifier}", fix)
        elif requirement.name in SHOWN:
            yield Check(requirement.name, "ok", version)
    if not wrong:
        yield Check("requirements", "ok", "every library is one of the versions that segpipe is made for")


def _tools() -> Iterator[Check]:
    done = shutil.which("git") and subprocess.run(["git", "--version"], capture_output=True, text=True, check=False)
    if not done or done.returncode:
        yield Check("git", "fail", "is not installed", "install git: every workspace is a Git repository")
        return
    version = done.stdout.removeprefix("git version").strip()
    numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
    yield _judged("git", numbers >= (2, 28), version, "segpipe needs Git 2.28 or later", "fail")


def _processors() -> Iterator[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield _judged(
        "processors", cores >= 2, f"{cores}", "training on one core is slow: raise train.budget, or use another machine"
    )
    for index, name, memory in query_gpus():
        yield Check(f"gpu {index}", "ok", f"{name}, {memory}")
    if gpus():
        import torch

        seen = torch.cuda.is_available()
        found = f"torch {torch.__version__} {'sees' if seen else 'does not see'} a GPU"
        yield _judged("cuda", seen, found, "install a torch build with CUDA that fits the driver", "fail")
    else:
        yield _bfloat16()


def _bfloat16() -> Check:
    """Whether the processor computes in bfloat16: that decides between minutes and a quarter of an hour of training."""
    flags = _cpu_flags()
    fast = [flag for flag in ("amx_bf16", "avx512_bf16", "avx_ne_convert", "bf16") if flag in flags]
    found = f"in hardware ({', '.join(fast)})" if fast else "not in hardware, and there is no GPU"
    slow = "training is about 2 to 5 times slower here than with AVX-512-BF16 or AMX: raise train.budget, or use another machine"
    return _judged("bfloat16", bool(fast), found, slow)


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:  # no Linux: torch finds out when it plans
        return set()
    match = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.MULTILINE)
    return set(match[1].split()) if match else set()


def _memory() -> Iterator[Check]:
    import psutil  # type: ignore[import-untyped]

    memory = psutil.virtual_memory()
    found = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"
    yield _judged("memory", memory.total >= 6 << 30, found, "below 6 GiB: lower train.batch and train.patch")


def _disk(folder: Path) -> Iterator[Check]:
    free = shutil.disk_usage(folder).free / 2**30
    fix = "make room: models, shards and DVC's cache grow with each run (dvc gc --workspace)"
    yield _judged("disk", free > 10, f"{free:.1f} GiB free at {folder}", fix, "warn" if free > 2 else "fail")


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
    """A check that ends in a user's error is a finding like any other."""
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
    return Check("params.yaml", "ok", f"candidates: {', '.join(params.candidates)}; {params.train.budget} each")


def _git_state(root: Path) -> Check:
    from segpipe.workspace.git import git
    from segpipe.workspace.root import check_repository

    check_repository(root)
    changed = git(root, "status", "--porcelain").splitlines()
    if changed:
        return Check(
            "git state", "ok", f"{counted(len(changed), 'uncommitted change')}; a release commits those of the pipeline"
        )
    return Check("git state", "ok", f"clean at {git(root, 'rev-parse', '--short', 'HEAD')}")


def _data(root: Path) -> Check:
    from segpipe.workspace.pipeline import data_state

    state = data_state(root)
    words = {
        "clean": "as data.dvc says",
        "changed": "differs from data.dvc, or is not in DVC's cache yet: `segpipe run` takes it in",
        "untracked": "not versioned yet: `segpipe run` takes it in",
        "missing": "data.dvc is here, data/ is not: `segpipe run` brings it from the cache or a remote",
        "absent": "none",
    }
    fix = "segpipe data import SRC --format folder, or segpipe data demo"
    return _judged("data", state != "absent", words[state], fix)


def _pipeline(root: Path) -> Check:
    from segpipe.workspace.pipeline import graph, stale

    stages, old = graph(root), stale(root)
    return Check("pipeline", "ok", f"{len(stages)} stages, {f'to do: {listed(old, 4)}' if old else 'all up to date'}")


def _remote(root: Path) -> Check:
    from segpipe.workspace.pipeline import remotes

    found = remotes(root)
    told = (
        ", ".join(f"{name} ({url})" for name, url in found.items()) or "none: data and models are on this machine only"
    )
    return _judged("dvc remote", bool(found), told, "dvc remote add -d NAME URL && dvc push")


def _live(root: Path) -> Check:
    from segpipe.config import load_params
    from segpipe.release.registry import live

    stage = load_params(root).release.stage
    return Check("live", "ok", f"{stage}: {live(root, stage) or 'nothing yet'}")

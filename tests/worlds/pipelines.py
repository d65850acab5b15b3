"""Workspaces with tiny pipelines: the stages are one-line Python programs, so that a run takes seconds."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from segpipe.workspace import pipeline
from segpipe.workspace.execution import runner

PARAMS = "candidates: {a: {family: kmeans}}\n"


def python(code: str) -> str:
    """Return the command of a stage that runs one line of Python."""
    assert "'" not in code
    return f"{sys.executable} -c '{code}'"


def wait_for(name: str) -> str:
    """Return a line of Python that waits until a file exists, and fails after minutes; tests synchronise by files, not by time."""
    return (
        f'import os,time; end=time.monotonic()+240; exists=lambda: os.path.exists("{name}"); '
        "[time.sleep(0.02) for _ in iter(lambda: exists() or time.monotonic()>end, True)]; assert exists()"
    )


def copy(source: str, target: str) -> str:
    """Return the command of a stage that copies a text file in capital letters."""
    return python(f'from pathlib import Path; Path("{target}").write_text(Path("{source}").read_text().upper())')


@functools.cache
def _empty() -> Path:
    """Create a repository with data/ and no stages, once per session, because each call of `dvc` takes a second."""
    folder = tempfile.TemporaryDirectory(prefix="segpipe-fake-")
    atexit.register(folder.cleanup)
    root = Path(folder.name)
    (root / "data").mkdir(parents=True)
    (root / "data" / "x.txt").write_text("hello\n")
    (root / "params.yaml").write_text(PARAMS)
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / ".gitignore").write_text("/.segpipe/\n/data\n")
    subprocess.run(["git", "init", "-q", "-b", "main", str(root)], check=True)
    pipeline.init_repo(root)
    pipeline.add_data(root)
    return root


def make(root: Path, stages: dict) -> Path:
    """Create a Git and DVC repository with data/ and these stages."""
    shutil.copytree(_empty(), root)
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    return root


def chain() -> dict:
    """Return the stages a -> b -> d and a -> c -> d; b and c need the device."""
    return {
        "d": {"cmd": copy("b.txt", "d.txt"), "deps": ["b.txt", "c.txt"], "outs": ["d.txt"]},
        "a": {"cmd": copy("data/x.txt", "a.txt"), "deps": ["data"], "outs": ["a.txt"]},
        "b": {"cmd": copy("a.txt", "b.txt"), "deps": ["a.txt"], "outs": ["b.txt"], "meta": {"resource": "device"}},
        "c": {"cmd": copy("a.txt", "c.txt"), "deps": ["a.txt"], "outs": ["c.txt"], "meta": {"resource": "device"}},
    }


def run(root: Path, name: str, **settings) -> tuple[runner.StageRun, list[str]]:
    """Run one stage; return its result and its lines of output."""
    lines: list[str] = []
    return runner.run_stage(root, name, lines.append, **settings), lines

"""A workspace with a tiny pipeline of its own: stages are one-line Python programs, so that a run takes seconds."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from segpipe.workspace import pipeline, runner

PARAMS = "candidates: {a: {family: kmeans}}\n"


def python(code: str) -> str:
    """A stage's command that runs a line of Python."""
    assert "'" not in code
    return f"{sys.executable} -c '{code}'"


def wait_for(name: str) -> str:
    """A line of Python that waits until a file is there, and fails after minutes: stages meet by files, not by seconds."""
    return (
        f'import os,time; end=time.monotonic()+240; there=lambda: os.path.exists("{name}"); '
        "[time.sleep(0.02) for _ in iter(lambda: there() or time.monotonic()>end, True)]; assert there()"
    )


def copy(source: str, target: str) -> str:
    """A stage's command that copies a file in capitals."""
    return python(f'from pathlib import Path; Path("{target}").write_text(Path("{source}").read_text().upper())')


@functools.cache
def _empty() -> Path:
    """A repository with data/ and no stages, made once: `dvc` takes a second each time it is called."""
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
    """A Git and DVC repository with data/ and these stages."""
    shutil.copytree(_empty(), root)
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    return root


def chain() -> dict:
    """a -> b -> d, a -> c -> d; b and c want the device."""
    return {
        "d": {"cmd": copy("b.txt", "d.txt"), "deps": ["b.txt", "c.txt"], "outs": ["d.txt"]},
        "a": {"cmd": copy("data/x.txt", "a.txt"), "deps": ["data"], "outs": ["a.txt"]},
        "b": {"cmd": copy("a.txt", "b.txt"), "deps": ["a.txt"], "outs": ["b.txt"], "meta": {"resource": "device"}},
        "c": {"cmd": copy("a.txt", "c.txt"), "deps": ["a.txt"], "outs": ["c.txt"], "meta": {"resource": "device"}},
    }


def run(root: Path, name: str, **settings) -> tuple[runner.StageRun, list[str]]:
    """Run one stage: what became of it, and its lines."""
    lines: list[str] = []
    return runner.run_stage(root, name, lines.append, **settings), lines

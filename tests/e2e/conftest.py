"""One demo workspace for all end-to-end tests: made once, by the command that users type."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Finished:
    """A command that ended: its code and what it said."""

    code: int
    out: str
    err: str


def run(*command: str | Path, cwd: Path, timeout: float = 900, check: bool = True, env: dict[str, str] | None = None) -> Finished:
    """Run a command with the environment's own programs first on the path."""
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"} | (env or {})
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, timeout=timeout, env=environment)
    if check and done.returncode:
        pytest.fail(f"{' '.join(map(str, command))} ended with {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return Finished(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Demo:
    """The demo workspace and how its making went."""

    root: Path
    first: Finished


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """`segpipe demo DIR`, in full."""
    root = tmp_path_factory.mktemp("e2e") / "demo"
    return Demo(root, run("segpipe", "demo", root, cwd=root.parent))


@pytest.fixture(scope="session")
def clone(demo: Demo) -> Path:
    """A second clone of the demo workspace at the commit of its first release, with nothing but what Git holds."""
    target = demo.root.parent / "clone"
    run("git", "clone", "-q", demo.root, target, cwd=demo.root.parent)
    run("git", "checkout", "-q", "segmenter@v0.1.0", cwd=target)
    assert not (target / "data").exists()
    assert not (target / "models").exists()
    return target


@pytest.fixture
def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def background() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start programs that are ended with the test, their whole process group with them."""
    import signal

    started: list[subprocess.Popen[str]] = []

    def start(*command: str | Path, cwd: Path, log: Path, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"} | (env or {})
        with log.open("w") as stream:
            process = subprocess.Popen(
                [str(c) for c in command], cwd=cwd, stdout=stream, stderr=subprocess.STDOUT, text=True,
                start_new_session=True, env=environment,
            )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def tool(name: str) -> str:
    """The path of a program, or a skipped test."""
    found = shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not installed")
    return found

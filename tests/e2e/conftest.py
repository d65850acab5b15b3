"""One demo workspace for all end-to-end tests, created once, by the command that users type.

The tests run in two processes that share it, each file in one process. Tests that change the workspace, or use the ports that the
documentation names, are in test_demo.py.

Trainings have a budget of steps, so no result depends on how many steps a busy machine takes in some minutes.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from segpipe.files import sha256_file
from segpipe.workspace.params_file import set_params

BIN = Path(sys.executable).parent
SIDE_BY_SIDE = {"OMP_WAIT_POLICY": "passive"} if "PYTEST_XDIST_WORKER" in os.environ else {}
"""Threads of OpenMP that wait must not use the processor, because two trainings run at once."""
FIXED = {
    "train.batch": 4,
    "train.precision": "fp32",
    "train.channels_last": False,
    "train.compile": False,
    "train.workers": 0,
    "evaluate.resamples": 1000,
}
"""Settings that the planner would otherwise measure, and fewer resamples. Tests of planning and evaluation cover what they replace."""
DEMO = {"train.budget": "60 steps", "train.patch": 128, "train.validations": 3, **FIXED}
"""Settings of the demo workspace: enough steps for every network to be much better than k-means."""
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Finished:
    """A command that has ended: its exit code and output."""

    code: int
    out: str
    err: str


def run(
    *command: str | Path, cwd: Path, timeout: float = 1800, check: bool = True, env: dict[str, str] | None = None
) -> Finished:
    """Run a command with the programs of this environment first on the path."""
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"} | SIDE_BY_SIDE | (env or {})
    result = subprocess.run(
        [str(c) for c in command], cwd=cwd, capture_output=True, text=True, timeout=timeout, env=environment
    )
    if check and result.returncode:
        pytest.fail(
            f"{' '.join(map(str, command))} ended with {result.returncode}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
        )
    return Finished(result.returncode, result.stdout, result.stderr)


@dataclass(frozen=True)
class Demo:
    """The demo workspace, the checkout that it was created in, and the output of `make demo`."""

    root: Path
    checkout: Path
    first: Finished
    weights: str
    """SHA-256 of the weights of the U-Net after the first training."""


def make_checkout(target: Path) -> None:
    """Copy this repository to an empty folder: the files that Git tracks or would track, and nothing else."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).out
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    run("git", "init", "-q", cwd=target)
    run("git", "add", "-A", cwd=target)
    run("git", "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "-q", "-m", "Checkout", cwd=target)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Run `make demo` completely: its environment, the demo workspace, a promoted model, an endpoint that answered.

    The workspace exists before, with settings of its own, so that its trainings have a number of steps and not of minutes.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    record, checkout = shared / "demo.json", shared / "e2e" / "segpipe"
    with FileLock(shared / "demo.lock"):
        if not record.exists():
            make_checkout(checkout)
            bare = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
            run("make", "setup", f"PYTHON={sys.executable}", cwd=checkout, env=bare)
            run(checkout / ".venv" / "bin" / "segpipe", "init", "demo", cwd=checkout, env=bare)
            set_params(checkout / "demo", DEMO)
            result = run("make", "demo", f"PYTHON={sys.executable}", cwd=checkout, env=bare, check=False)
            record.write_text(json.dumps(asdict(result)))
            if result.code == 0:
                shutil.copy(checkout / "demo" / "models" / "unet" / "weights.safetensors", shared / "first.safetensors")
    first = Finished(**json.loads(record.read_text()))
    assert first.code == 0, f"make demo ended with {first.code}\n{first.out[-3000:]}\n{first.err[-3000:]}"
    return Demo(checkout / "demo", checkout, first, sha256_file(shared / "first.safetensors"))


@pytest.fixture(scope="session")
def clone(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second clone of the demo workspace at the commit of its first release, with only the files that Git holds."""
    target = tmp_path_factory.mktemp("second") / "clone"
    run("git", "clone", "-q", demo.root, target, cwd=target.parent)
    run("git", "checkout", "-q", "segmenter@v0.1.0", cwd=target)
    assert not (target / "data").exists()
    assert not (target / "models").exists()
    return target


@pytest.fixture
def free_port() -> int:
    """A loopback port that is not in use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def background() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start programs whose process groups are ended after the test."""
    import signal

    started: list[subprocess.Popen[str]] = []

    def start(*command: str | Path, cwd: Path, log: Path, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"} | SIDE_BY_SIDE | (env or {})
        with log.open("w") as stream:
            process = subprocess.Popen(
                [str(c) for c in command],
                cwd=cwd,
                stdout=stream,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
                env=environment,
            )
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


def shorten(workspace: Path, steps: int = 12, seed: int = 0, gates: bool = False, margin: float = 0.02) -> None:
    """Reduce `segpipe run` to a few steps of one network, with two validations, and the baseline; without `gates`, switch the gates off."""
    path = workspace / "params.yaml"
    path.write_text(re.sub(r"  deeplabv3plus:\n(    .*\n)+", "", path.read_text()))
    recipe = {"train.budget": f"{steps} steps", "train.seed": seed, "train.patch": 64, "train.validations": 2}
    gate_settings = (
        {"gates.champion.margin": margin}
        if gates
        else dict.fromkeys(["gates.floor", "gates.baseline", "gates.champion"])
    )
    set_params(workspace, recipe | FIXED | gate_settings)


def release_second(demo: Demo) -> str:
    """Train the U-Net of the demo again, with fewer steps, another seed and a wide margin of the champion gate; return the live version."""
    shorten(demo.root, steps=40, seed=1, gates=True, margin=0.9)
    set_params(demo.root, {"gates.floor": None, "gates.baseline": None})
    return str(json.loads(run("segpipe", "run", "--json", cwd=demo.root).out)["live"])


def wait_for(url: str, seconds: float = 240) -> None:
    """Wait until a GET is answered with 200, or fail the test."""
    import httpx

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    pytest.fail(f"{url} did not answer within {seconds} s")


def run_all(commands: tuple[str, ...], cwd: Path, background, tmp_path: Path, after: dict | None = None) -> None:
    """Run commands one after the other. One that ends with `&` runs in the background; `cd` applies to those after it."""
    for number, command in enumerate(commands):
        if command.startswith("cd "):
            cwd = cwd / command[3:]
        elif command.endswith(" &"):
            background(*shlex.split(command[:-2]), cwd=cwd, log=tmp_path / f"{number}.log")
            if command.startswith("segpipe serve"):
                wait_for("http://127.0.0.1:3000/readyz")
        else:
            run("bash", "-c", command, cwd=cwd)
        for prefix, action in (after or {}).items():
            if command.startswith(prefix):
                action(cwd)

"""Tests of scheduled runs: the deployment of prefect.yaml with a real Prefect server and worker, and `segpipe schedule`."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from segpipe.release.packaging.bento_server import free_port
from tests.worlds import pipelines

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def environment(home: Path, **more: str) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    return {**inherited, **quiet, "PATH": path, "PREFECT_HOME": str(home), **more}


@contextlib.contextmanager
def background(command, log: Path, **settings):
    """Run a program, and end it with all its child processes when the block ends."""
    with log.open("w") as sink:
        process = subprocess.Popen(
            command, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL, start_new_session=True, **settings
        )
    try:
        yield process
    finally:
        processes = (
            [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            if process.poll() is None
            else []
        )
        for member in processes[:1]:
            member.terminate()
        _, alive = psutil.wait_procs(processes, timeout=20)
        for member in alive:
            member.kill()
        process.wait()


def wait_for(condition, seconds: float, log: Path):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if result := condition():
                return result
        time.sleep(0.5)
    pytest.fail(f"did not happen within {seconds} s; {log.name} ends with: {log.read_text()[-2000:]}")


@pytest.fixture()
def workspace(tmp_path):
    root = pipelines.make(tmp_path / "ws", pipelines.chain())
    (root / "flows").symlink_to(ROOT / "flows")
    return root


def flow_runs(api: str) -> list[dict]:
    return httpx.post(f"{api}/flow_runs/filter", json={"sort": "EXPECTED_START_TIME_ASC"}, trust_env=False).json()


def test_the_schedule_of_the_deployment_triggers_a_run(workspace, tmp_path):
    text = (ROOT / "prefect.yaml").read_text()
    assert '"0 2 * * 1"' in text
    (workspace / "prefect.yaml").write_text(text.replace('"0 2 * * 1"', '"* * * * *"'))
    port, home = free_port(), tmp_path / "home"
    home.mkdir()
    server_log, worker_log = tmp_path / "server.log", tmp_path / "worker.log"
    api = f"http://127.0.0.1:{port}/api"
    prefect = [sys.executable, "-m", "prefect"]
    with background(
        [*prefect, "server", "start", "--host", "127.0.0.1", "--port", str(port)], server_log, env=environment(home)
    ):
        wait_for(lambda: httpx.get(f"{api}/health", trust_env=False).status_code == 200, 120, server_log)
        client = environment(home, PREFECT_API_URL=api)
        for command in (["work-pool", "create", "segpipe", "--type", "process"], ["--no-prompt", "deploy", "--all"]):
            done = subprocess.run(
                [*prefect, *command], cwd=workspace, env=client, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
        worker = [*prefect, "worker", "start", "--pool", "segpipe"]
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        with background(worker, worker_log, cwd=elsewhere, env=client):

            def finished():
                return [run for run in flow_runs(api) if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED")]

            run = wait_for(finished, 240, worker_log)[0]
    assert run["state_type"] == "COMPLETED", worker_log.read_text()
    assert run["auto_scheduled"]
    assert (workspace / "d.txt").read_text() == "HELLO\n"
    twin = pipelines.make(tmp_path / "twin", pipelines.chain())
    (twin / "flows").symlink_to(ROOT / "flows")
    by_hand = [sys.executable, "-m", "segpipe.cli.main", "run"]
    subprocess.run(by_hand, cwd=twin, env=environment(tmp_path / "by-hand"), check=True, capture_output=True)
    stages, expected = (yaml.safe_load((root / "dvc.lock").read_text())["stages"] for root in (workspace, twin))
    assert set(stages) == {"a", "b", "c", "d"}
    assert stages == expected, "a scheduled run has the same results as `segpipe run`"


def test_segpipe_schedule_needs_no_server_and_leaves_no_process(workspace, tmp_path):
    log = tmp_path / "schedule.log"
    command = [sys.executable, "-m", "segpipe.cli.main", "schedule", "--cron", "* * * * *"]
    with background(
        command, log, cwd=workspace, env={k: v for k, v in environment(tmp_path).items() if k != "PREFECT_HOME"}
    ) as process:
        wait_for(lambda: (workspace / "d.txt").exists(), 240, log)
        assert re.search(r"next run: \w+ \d{4}-\d\d-\d\d \d\d:\d\d UTC", log.read_text())
        children = psutil.Process(process.pid).children(recursive=True)
        assert any("prefect" in " ".join(child.cmdline()) for child in children)
        process.terminate()
        process.wait(40)
        _, alive = psutil.wait_procs(children, timeout=20)
        assert alive == []
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize(
    "arguments", [["--cron", "whenever"], ["--cron", "0 2 * * 1", "--timezone", "Atlantis/Capital"]]
)
def test_an_invalid_schedule_is_refused_before_anything_starts(workspace, arguments):
    command = [sys.executable, "-m", "segpipe.cli.main", "schedule", *arguments]
    done = subprocess.run(command, cwd=workspace, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "not a schedule" in done.stderr
    assert not (workspace / ".segpipe" / "prefect-schedule" / "server.log").exists()

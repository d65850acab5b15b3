"""Stages are run, with pipelines of one-line programs."""

from __future__ import annotations

import os
import threading
import time

import psutil
import pytest

from segpipe import processes
from segpipe.errors import ConfigError
from segpipe.workspace import pipeline
from segpipe.workspace.execution import runner
from tests.worlds import pipelines


def test_a_stage_that_is_up_to_date_does_nothing(chain):
    pipelines.run(chain, "a")
    before = (chain / "a.txt").stat().st_mtime_ns
    result, _ = pipelines.run(chain, "a")
    assert result.ok
    assert (chain / "a.txt").stat().st_mtime_ns == before


def test_lines_come_as_they_are_written_and_without_those_of_dvc(tmp_path):
    """The second line comes only after the first has been read."""
    code = 'print("first", flush=True); ' + pipelines.wait_for("read") + '; open("o", "w").write("o"); print("second")'
    root = pipelines.make(tmp_path / "ws", {"slow": {"cmd": pipelines.python(code), "outs": ["o"]}})
    seen = []

    def read(line):
        seen.append(line)
        (root / "read").touch()

    result = runner.run_stage(root, "slow", read)
    assert result.ok, result
    assert seen == ["first", "second"]


@pytest.mark.parametrize("code", [1, 3, 7])
def test_the_exit_code_is_that_of_the_stages_own_command(tmp_path, code):
    cmd = pipelines.python(f'import sys; print("it went wrong"); sys.exit({code})')
    result, lines = pipelines.run(pipelines.make(tmp_path / "ws", {"bad": {"cmd": cmd, "outs": ["o"]}}), "bad")
    assert (result.ok, result.code) == (False, code)
    assert "it went wrong" in result.error and "bad" in result.error
    assert lines == ["it went wrong"]


def test_an_error_of_segpipe_is_reported_unchanged(tmp_path):
    root = pipelines.make(tmp_path / "ws", {"ingest": {"cmd": "segpipe plan nobody --explain", "outs": ["o"]}})
    result, lines = pipelines.run(root, "ingest")
    assert result.code == 2
    assert result.error.startswith("params.yaml: no such candidate (found nobody")
    assert f"error: {result.error}" in lines


def test_the_error_of_an_earlier_run_is_not_reported_again(tmp_path):
    root = pipelines.make(tmp_path / "ws", {"s": {"cmd": "segpipe plan nobody --explain", "outs": ["o"]}})
    pipelines.run(root, "s")
    (root / "dvc.yaml").write_text((root / "dvc.yaml").read_text().replace("segpipe plan nobody --explain", "exit 9"))
    result, _ = pipelines.run(root, "s")
    assert result.code == 9


def test_an_out_that_the_stage_did_not_write_is_reported_by_dvc(tmp_path):
    result, _ = pipelines.run(pipelines.make(tmp_path / "ws", {"s": {"cmd": "segpipe --version", "outs": ["o"]}}), "s")
    assert result.code == 1
    assert "does not exist" in result.error


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_the_signal_that_killed_a_stage_is_reported(tmp_path, monkeypatch, shell):
    # the shell in which DVC runs a command: dash waits for it (137), bash replaces itself by it (-9)
    monkeypatch.setenv("SHELL", shell)
    cmd = pipelines.python("import os; os.kill(os.getpid(), 9)")
    result, _ = pipelines.run(pipelines.make(tmp_path / "ws", {"oom": {"cmd": cmd, "outs": ["o"]}}), "oom")
    assert result.code == 1
    assert "SIGKILL" in result.error


def sleeper(root):
    """A stage that starts a process and waits for it; both write their process ids to files."""
    child = 'import os,time; open("child","w").write(str(os.getpid())); time.sleep(600)'
    code = (
        "import os,sys,subprocess; "
        'open("parent","w").write(str(os.getpid())); '
        f'subprocess.run([sys.executable, "-c", """{child}"""])'
    )
    return pipelines.make(root, {"sleep": {"cmd": pipelines.python(code), "outs": ["o"]}})


def wait_for_pid(root, name):
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if (root / name).exists() and (text := (root / name).read_text()):
            return int(text)
        time.sleep(0.05)
    raise AssertionError(f"{name} did not start")


def has_ended(pid):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_stopping_ends_the_stage_and_all_its_processes(tmp_path):
    root = sleeper(tmp_path / "ws")
    stop = threading.Event()
    result = []
    thread = threading.Thread(target=lambda: result.append(pipelines.run(root, "sleep", stop=stop)[0]))
    thread.start()
    processes = [wait_for_pid(root, "parent"), wait_for_pid(root, "child")]
    stop.set()
    thread.join(120)
    assert result[0].code == 130 and "stopped" in result[0].error
    assert all(has_ended(pid) for pid in processes)
    assert pipeline.is_stale(root, "sleep"), "the pipeline can be read again right away"


def test_a_timeout_ends_the_stage(tmp_path):
    root = sleeper(tmp_path / "ws")
    result, _ = pipelines.run(root, "sleep", timeout=3)
    assert not result.ok
    assert "took longer than 3 s" in result.error
    if (root / "child").exists():
        assert has_ended(wait_for_pid(root, "child"))


def test_a_stage_that_ignores_sigterm_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "GRACE_S", 1.0)
    code = 'import os,signal,time; signal.signal(15, signal.SIG_IGN); open("parent","w").write(str(os.getpid())); time.sleep(600)'
    root = pipelines.make(tmp_path / "ws", {"stubborn": {"cmd": pipelines.python(code), "outs": ["o"]}})
    stop = threading.Event()
    thread = threading.Thread(target=lambda: pipelines.run(root, "stubborn", stop=stop))
    thread.start()
    pid = wait_for_pid(root, "parent")
    stop.set()
    thread.join(120)
    assert not thread.is_alive()
    assert has_ended(pid)


def test_environment_variables_are_passed_to_the_stage(tmp_path):
    cmd = pipelines.python('import os; open("o","w").write(os.environ["CUDA_VISIBLE_DEVICES"])')
    root = pipelines.make(tmp_path / "ws", {"s": {"cmd": cmd, "outs": ["o"]}})
    assert pipelines.run(root, "s", environment={"CUDA_VISIBLE_DEVICES": "3"})[0].ok
    assert (root / "o").read_text() == "3"
    assert os.environ.get("CUDA_VISIBLE_DEVICES") != "3"


def test_a_missing_section_of_params_is_an_error_with_a_fix(tmp_path):
    root = pipelines.make(tmp_path / "ws", {"a": {"cmd": "true", "params": ["split"]}})
    result, _ = pipelines.run(root, "a")
    assert result.code == ConfigError.exit_code
    assert result.error == "params.yaml: no section split. Fix: add `split: {}` to use the defaults"

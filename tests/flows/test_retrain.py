"""Tests of the retrain flow on pipelines of one-line programs: what Prefect records, failure, interruption, the lock."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from segpipe.errors import MissingError
from segpipe.release.run_summary import RunSummary
from segpipe.retraining import run_pipeline
from tests.worlds import pipelines

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def retrain(server):
    """A function that runs the pipeline of a workspace, recorded by flows/retrain.py."""
    from segpipe.workspace.flow_loader import load_flow

    return functools.partial(run_pipeline, flow=load_flow(ROOT, "retrain"))


def ran(summary):
    assert not set(summary.ran) & set(summary.up_to_date)
    return set(summary.ran)


def test_stale_stages_run_once_and_a_second_run_does_nothing(retrain, tmp_path):
    root = pipelines.make(tmp_path / "ws", pipelines.chain())
    summary = retrain(root)
    assert ran(summary) == {"a", "b", "c", "d"}
    assert (root / "d.txt").read_text() == "HELLO\n"
    json.dumps(summary.model_dump(mode="json"))
    assert ran(retrain(root)) == set()


def test_only_stages_affected_by_a_change_run_until_one_writes_equal_bytes(retrain, tmp_path):
    stages = {name: stage for name, stage in pipelines.chain().items() if name in "ab"}
    root = pipelines.make(tmp_path / "ws", stages)
    retrain(root)
    (root / "data" / "y.txt").write_text("a new file that stage a does not read")
    pointer = (root / "data.dvc").read_bytes()
    assert ran(retrain(root)) == {"a"}, "a wrote the same bytes again"
    assert (root / "data.dvc").read_bytes() != pointer, "the new data have been versioned"
    (root / "data" / "x.txt").write_text("other")
    assert ran(retrain(root)) == {"a", "b"}
    assert (root / "b.txt").read_text() == "OTHER"


def test_a_failing_stage_ends_the_run_with_its_error_and_stops_the_others(retrain, tmp_path):
    fail = pipelines.python(pipelines.wait_for("pid") + '; import sys; print("bad pixel"); sys.exit(3)')
    forever = pipelines.python(
        'import os,time; open("id","w").write(str(os.getpid())); os.rename("id", "pid"); time.sleep(600)'
    )
    later = {"cmd": pipelines.copy("f", "l"), "deps": ["f"], "outs": ["l"]}
    root = pipelines.make(
        tmp_path / "ws",
        {"fail": {"cmd": fail, "outs": ["f"]}, "forever": {"cmd": forever, "outs": ["o"]}, "later": later},
    )
    from segpipe.errors import SegpipeError

    with pytest.raises(SegpipeError, match="bad pixel") as caught:
        retrain(root, jobs=2)
    assert caught.value.exit_code == 3
    assert not (root / "l").exists()
    assert not psutil.pid_exists(int((root / "pid").read_text()))


def test_a_second_run_in_one_workspace_is_refused(retrain, tmp_path):
    from segpipe.errors import BusyError
    from segpipe.workspace.lock import lock

    root = pipelines.make(tmp_path / "ws", {})
    with lock(root), pytest.raises(BusyError, match=f"process {os.getpid()} "):
        retrain(root)


def test_a_workspace_inside_another_repository_is_refused(retrain, tmp_path):
    import shutil

    from segpipe.errors import ConfigError

    root = pipelines.make(tmp_path / "ws", pipelines.chain())
    shutil.rmtree(root / ".git")
    with pytest.raises(ConfigError, match="Git"):
        retrain(root)


def test_each_stage_is_a_task_with_its_output_as_log(retrain, server, tmp_path):
    lines = pipelines.python('print("first"); print("second"); open("o", "w").write("o")')
    root = pipelines.make(tmp_path / "ws", {"talk": {"cmd": lines, "outs": ["o"]}})
    retrain(root)
    tasks = httpx.post(f"{server}/task_runs/filter", json={}, trust_env=False).json()
    (talk,) = [task for task in tasks if task["name"] == "talk"]
    assert talk["state_type"] == "COMPLETED"
    request = {"logs": {"task_run_id": {"any_": [talk["id"]]}}, "sort": "TIMESTAMP_ASC"}

    def messages():
        answer = httpx.post(f"{server}/logs/filter", json=request, trust_env=False)
        return [log["message"] for log in answer.json()]

    deadline = time.monotonic() + 60  # Prefect sends logs in batches
    while "second" not in messages() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert [message for message in messages() if message in ("first", "second")] == ["first", "second"]


def segpipe(root, *arguments, **settings):
    command = [sys.executable, "-m", "segpipe.cli.main", *arguments]
    return subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **settings
    )


def test_a_server_that_does_not_answer_is_named_in_one_line(tmp_path):
    root = pipelines.make(tmp_path / "ws", pipelines.chain())
    (root / "flows").symlink_to(ROOT / "flows")
    run = segpipe(root, "run", env={**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api"})
    _, err = run.communicate(timeout=240)
    assert run.returncode == MissingError.exit_code and "Traceback" not in err, err
    assert "error: PREFECT_API_URL=http://127.0.0.1:9/api: Prefect cannot record the run" in err


def check_interrupted_run_continues(tmp_path, signum, environment):
    code = (
        'import os,time,pathlib; again=pathlib.Path("pid").exists(); '
        'pathlib.Path("id").write_text(str(os.getpid())); os.rename("id", "pid"); '
        'time.sleep(0 if again else 600); open("o","w").write("x")'
    )
    done = {"cmd": pipelines.copy("data/x.txt", "d.txt"), "deps": ["data"], "outs": ["d.txt"]}
    stages = {"done": done, "slow": {"cmd": pipelines.python(code), "deps": ["d.txt"], "outs": ["o"]}}
    root = pipelines.make(tmp_path / "ws", stages)
    (root / "flows").symlink_to(ROOT / "flows")
    first = segpipe(root, "run", env=environment)
    deadline = time.monotonic() + 240
    while not (root / "pid").exists() and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert (root / "pid").exists(), first.communicate()
    children = psutil.Process(first.pid).children(recursive=True)
    stage = psutil.Process(int((root / "pid").read_text()))
    assert stage in children
    first.send_signal(signum)
    _, err = first.communicate(timeout=120)
    assert first.returncode == 130, err
    assert "Traceback" not in err and "the same command continues" in err
    _, alive = psutil.wait_procs([stage, *children], timeout=120)
    assert alive == []

    second = segpipe(root, "run", "--json", env=environment)
    out, err = second.communicate(timeout=240)
    assert second.returncode == 0, err
    assert ran(RunSummary.model_validate_json(out)) == {"slow"}


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "signum", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=SLOW), pytest.param(signal.SIGHUP, marks=SLOW)]
)
def test_an_interrupted_run_leaves_no_process_and_the_next_one_continues(server, tmp_path, signum):
    check_interrupted_run_continues(tmp_path, signum, dict(os.environ))


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_the_server_that_it_started(tmp_path, signum):
    check_interrupted_run_continues(
        tmp_path, signum, {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    )
    assert list((tmp_path / "ws" / ".segpipe" / "prefect").glob("*.db"))


def test_the_flow_is_also_a_script(server, tmp_path):
    root = pipelines.make(tmp_path / "ws", {"s": {"cmd": pipelines.python("raise SystemExit(7)"), "outs": ["o"]}})
    command = [sys.executable, str(ROOT / "flows" / "retrain.py")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 7
    assert done.stderr.splitlines()[-1].startswith("error: stage s failed, exit code 7"), done.stderr


def test_flows_do_not_need_the_command_line(repo_root):
    """Flows import only the library: they work if `segpipe.cli` cannot be imported, so there is no circular import at run time."""
    code = """
import sys
sys.modules["segpipe.cli"] = None  # importing it, or a module in it, raises ImportError
import importlib
for name in ("retrain", "promote", "verify", "schedule"):
    importlib.import_module(f"flows.{name}")
"""
    sources = [path.read_text() for path in (repo_root / "flows").glob("*.py")]
    assert not any("segpipe.cli" in source for source in sources), "not even inside functions"
    subprocess.run([sys.executable, "-c", code], cwd=repo_root, check=True, timeout=240)


def test_the_module_is_found_by_its_path():
    assert importlib.util.find_spec("flows.retrain") is not None

"""Tests of a run without Prefect: what is decided before the flow is loaded, and what a run that has nothing to do does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from segpipe.errors import BusyError, ConfigError, SegpipeError
from segpipe.retraining import open_run, run_pipeline
from segpipe.signals import interrupt_on_termination
from segpipe.workspace.execution.estimates import read_durations
from segpipe.workspace.execution.events import Recorder, StageEnded, StageStarted
from segpipe.workspace.lock import lock
from segpipe.workspace.paths import Paths
from tests.worlds import pipelines


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)


def finish(run, recorder, display):
    """Stand for the flow: wait for the stages."""
    return run.wait()


FLOW = SimpleNamespace(record=finish)
UNREACHABLE = SimpleNamespace()  # a flow that fails if it is used


def test_a_run_with_nothing_to_do_does_not_load_the_flow(tmp_path):
    root = pipelines.make(tmp_path / "ws", pipelines.chain())
    assert set(run_pipeline(root, flow=FLOW).ran) == set("abcd")
    summary = run_pipeline(root, flow=UNREACHABLE)
    assert summary.ran == {} and set(summary.up_to_date) == set("abcd")
    assert len(list(Paths(root).logs.iterdir())) == 1, "only the first run had something to log"


def test_it_is_recorded_if_the_user_has_a_server(tmp_path, monkeypatch):
    root = pipelines.make(tmp_path / "ws", pipelines.chain())
    run_pipeline(root, flow=FLOW)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    recorded = []
    flow = SimpleNamespace(record=lambda run, *rest: recorded.append(run) or run.wait())
    run_pipeline(root, flow=flow)
    assert recorded


def test_stages_start_before_the_flow_is_loaded(tmp_path):
    started = pipelines.python(
        'open("started", "w").close(); ' + pipelines.wait_for("flow") + '; open("o","w").close()'
    )
    root = pipelines.make(tmp_path / "ws", {"s": {"cmd": started, "outs": ["o"]}})

    def record(run, recorder, display):
        event = recorder.entries.get(timeout=60)
        assert event.name == "s"
        (root / "flow").touch()
        return run.wait()

    assert set(run_pipeline(root, flow=SimpleNamespace(record=record)).ran) == {"s"}


def test_new_data_are_versioned_before_stages_are_judged(tmp_path):
    root = pipelines.make(tmp_path / "ws", pipelines.chain())
    run_pipeline(root, flow=FLOW)
    pointer = (root / "data.dvc").read_bytes()
    (root / "data" / "x.txt").write_text("other")
    assert set(run_pipeline(root, flow=FLOW).ran) == set("abcd")
    assert (root / "data.dvc").read_bytes() != pointer


class ClosedTerminal:
    """A display that cannot print the end of a stage."""

    def begin(self, state):
        pass

    def __call__(self, event):
        if isinstance(event, StageEnded):
            raise BrokenPipeError("closed")


def test_a_display_that_fails_leaves_no_reader_of_the_recorder_waiting(tmp_path):
    root, recorder = pipelines.make(tmp_path / "ws", pipelines.chain()), Recorder()
    with open_run(root, display=ClosedTerminal(), recorder=recorder) as run, pytest.raises(BrokenPipeError):
        run.wait()
    (stage,) = iter(lambda: recorder.entries.get(timeout=60), None)
    assert stage.output.get(timeout=60).name == "a"


def test_closing_a_recorder_ends_the_stages_whose_end_it_was_not_told():
    recorder = Recorder()
    recorder(StageStarted("a"))
    recorder.close()
    run = recorder.entries.get(timeout=1).output.get(timeout=1)
    assert (run.name, run.ok) == ("a", False) and recorder.entries.get(timeout=1) is None


@pytest.mark.parametrize("jobs", [0, -1])
def test_fewer_than_one_job_is_refused(tmp_path, jobs):
    root = pipelines.make(tmp_path / "ws", pipelines.chain())
    with pytest.raises(ConfigError, match="jobs"), open_run(root, jobs=jobs) as run:
        run.stop()


def test_durations_are_kept_also_if_a_later_stage_fails(tmp_path):
    fails = {"cmd": pipelines.python("raise SystemExit(3)"), "deps": ["a.txt"], "outs": ["f"]}
    root = pipelines.make(tmp_path / "ws", {"a": pipelines.chain()["a"], "fails": fails})
    with pytest.raises(SegpipeError, match="fails"):
        run_pipeline(root, flow=FLOW)
    assert set(read_durations(Paths(root).durations)) == {"a"}


def test_leaving_the_block_stops_the_stages(tmp_path):
    forever = pipelines.python('import time; open("started", "w").close(); time.sleep(600)')
    root = pipelines.make(tmp_path / "ws", {"s": {"cmd": forever, "outs": ["o"]}})
    with pytest.raises(RuntimeError, match="as if"), open_run(root):
        raise RuntimeError("as if the flow could not be loaded")
    with lock(root):
        pass  # the workspace is free again


def test_an_interrupt_that_python_ignores_still_ends_the_run(tmp_path):
    """Python ignores a KeyboardInterrupt that is raised in a finaliser; the stages are stopped nevertheless."""
    forever = pipelines.python('import time; open("started", "w").close(); time.sleep(600)')
    root = pipelines.make(tmp_path / "ws", {"s": {"cmd": forever, "outs": ["o"]}})

    def record(run, recorder, display):
        with contextlib.suppress(KeyboardInterrupt):  # stands for the finaliser
            signal.raise_signal(signal.SIGINT)
        return run.wait()

    with pytest.raises(KeyboardInterrupt):
        run_pipeline(root, flow=SimpleNamespace(record=record))


class InterruptedFinaliser:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_in_a_finaliser_is_repeated_after_it():
    event = threading.Event()
    with interrupt_on_termination(event), pytest.raises(KeyboardInterrupt):
        InterruptedFinaliser()
        assert event.is_set()
        for _ in range(100):
            time.sleep(0.05)


ERRORS_BEFORE_PREFECT_AND_DVC = """
import sys
sys.modules["prefect"] = None  # importing it raises ImportError
sys.modules["dvc"] = None
from segpipe.cli.main import main
sys.argv = ["segpipe", "run"]
main()
"""


@pytest.mark.parametrize("fault", ["params", "busy", "no workspace"])
def test_simple_mistakes_are_reported_before_prefect_and_dvc_are_imported(tmp_path, fault):
    root = pipelines.make(tmp_path / "ws", pipelines.chain())
    expected = {
        "params": (ConfigError, "trian"),
        "busy": (BusyError, "another run"),
        "no workspace": (ConfigError, "init"),
    }
    if fault == "params":
        (root / "params.yaml").write_text(pipelines.PARAMS + "trian: {}\n")
    elif fault == "no workspace":
        (root / "params.yaml").unlink()
    command = [sys.executable, "-c", ERRORS_BEFORE_PREFECT_AND_DVC]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}

    def run():
        return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)

    if fault == "busy":
        with lock(root):
            done = run()
    else:
        done = run()
    error, text = expected[fault]
    assert done.returncode == error.exit_code, done.stderr
    assert text in done.stderr and "Traceback" not in done.stderr

"""Tests of the scheduler on pipelines of one-line programs: order, skipping, devices, failure, stopping."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psutil
import pytest

from segpipe.workspace import pipeline
from segpipe.workspace.execution import scheduler
from segpipe.workspace.execution.events import (
    Event,
    LogFile,
    Message,
    StageEnded,
    StageLine,
    StageSkipped,
    StageStarted,
)
from segpipe.workspace.execution.scheduler import StageFailed, run_stages
from tests.worlds import pipelines


class Events:
    """A listener that keeps all events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)


def run(root: Path, jobs: int | None = None, events: Events | None = None) -> set[str]:
    """Run a pipeline, and return the stages that ran."""
    runs = run_stages(root, pipeline.graph(root), jobs, events or Events(), threading.Event())
    return {name for name, result in runs.items() if result}


def test_stages_run_in_order_and_only_if_they_are_out_of_date(tmp_path):
    root, events = pipelines.make(tmp_path / "ws", pipelines.chain()), Events()
    assert run(root, events=events) == {"a", "b", "c", "d"}
    assert (root / "d.txt").read_text() == "HELLO\n"
    order = [event.run.name if isinstance(event, StageEnded) else event for event in events.events]
    assert order[:2] == [StageStarted("a"), "a"] and order[-2:] == [StageStarted("d"), "d"]
    again = Events()
    assert run(root, events=again) == set()
    assert sorted(event.stage for event in again.events) == list("abcd")
    assert {type(event) for event in again.events} == {StageSkipped}


def spans(resource=None):
    """Return p and q, stages without upstream that write when they began and ended."""
    code = 'import time; a=time.time(); time.sleep(0.5); open("{0}","w").write(f"{{a}} {{time.time()}}")'
    meta = {"meta": {"resource": resource}} if resource else {}
    return {name: {"cmd": pipelines.python(code.format(name)), "outs": [name], **meta} for name in "pq"}


def rendezvous(resource=None):
    """Return p and q, stages without upstream that wait for each other to begin, and write the devices that are visible to them."""
    meta = {"meta": {"resource": resource}} if resource else {}
    write_devices = 'open("{0}","w").write(os.environ.get("CUDA_VISIBLE_DEVICES", "none"))'
    code = 'open("{0}.began","w").close(); ' + pipelines.wait_for("{1}.began") + "; " + write_devices
    return {a: {"cmd": pipelines.python(code.format(a, b)), "outs": [a], **meta} for a, b in ("pq", "qp")}


def test_ready_stages_run_at_the_same_time(tmp_path):
    assert run(pipelines.make(tmp_path / "ws", rendezvous()), jobs=2) == {"p", "q"}


def test_device_stages_run_one_at_a_time_unless_jobs_says_otherwise(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    root = pipelines.make(tmp_path / "ws", spans("device"))
    run(root)
    (a, b), (c, d) = [[float(t) for t in (root / name).read_text().split()] for name in "pq"]
    assert b < c or d < a
    assert run(pipelines.make(tmp_path / "other", rendezvous("device")), jobs=2) == {"p", "q"}


def test_each_device_stage_gets_a_device_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    root = pipelines.make(tmp_path / "ws", rendezvous("device"))
    run(root, jobs=2)
    assert {(root / name).read_text() for name in "pq"} == {"4", "7"}
    assert scheduler.device_slots(3) == ["4", "7", "4"]


FOREVER = pipelines.python(
    'import os,time; open("id","w").write(str(os.getpid())); os.rename("id", "pid"); time.sleep(600)'
)


def test_a_failing_stage_ends_the_run_with_its_error_and_stops_the_others(tmp_path):
    fail = pipelines.python(pipelines.wait_for("pid") + '; import sys; print("bad pixel"); sys.exit(3)')
    later = {"cmd": pipelines.copy("f", "l"), "deps": ["f"], "outs": ["l"]}
    stages = {"fail": {"cmd": fail, "outs": ["f"]}, "forever": {"cmd": FOREVER, "outs": ["o"]}, "later": later}
    root = pipelines.make(tmp_path / "ws", stages)
    with pytest.raises(StageFailed, match="bad pixel") as caught:
        run(root, jobs=2)
    assert caught.value.exit_code == 3
    assert not (root / "l").exists()
    assert not psutil.pid_exists(int((root / "pid").read_text()))


def test_the_stop_event_ends_running_stages_and_no_other_starts(tmp_path):
    later = {"cmd": pipelines.copy("o", "l"), "deps": ["o"], "outs": ["l"]}
    root = pipelines.make(tmp_path / "ws", {"forever": {"cmd": FOREVER, "outs": ["o"]}, "later": later})
    stop, events = threading.Event(), Events()

    def stop_later() -> None:
        deadline = time.monotonic() + 120
        while not (root / "pid").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        stop.set()

    threading.Thread(target=stop_later, daemon=True).start()
    with pytest.raises(StageFailed, match="stopped") as caught:
        run_stages(root, pipeline.graph(root), 2, events, stop)
    assert caught.value.exit_code == 130
    assert [event for event in events.events if isinstance(event, StageStarted)] == [StageStarted("forever")]
    assert not psutil.pid_exists(int((root / "pid").read_text()))


def test_an_error_in_a_listener_ends_the_run(tmp_path):
    class Broken(Events):
        def __call__(self, event: Event) -> None:
            super().__call__(event)
            if isinstance(event, StageLine):
                raise RuntimeError("the listener failed")

    talk = {"cmd": pipelines.python('print("hello"); open("o","w").write("o")'), "outs": ["o"]}
    root, events = pipelines.make(tmp_path / "ws", {"talk": talk}), Broken()
    with pytest.raises(RuntimeError, match="the listener failed"):
        run(root, events=events)
    assert isinstance(events.events[-1], StageEnded), "whoever waits for the end of the stage is told"


def test_the_log_file_has_every_line(tmp_path):
    talk = {"cmd": pipelines.python('print("hello"); open("o","w").write("o")'), "outs": ["o"]}
    root = pipelines.make(tmp_path / "ws", {"talk": talk})
    log = LogFile(tmp_path / "logs")
    log(Message("before the first stage"))
    assert not log.path.exists(), "a run without stages leaves no file"
    run_stages(root, pipeline.graph(root), None, log, threading.Event())
    lines = [line.split(maxsplit=1)[1].strip() for line in log.path.read_text().splitlines()]
    assert lines[0] == "before the first stage"
    assert [line.split()[0] for line in lines[1:]] == ["talk"] * 3
    assert lines[2].endswith("hello") and "done in" in lines[3]

"""Shared work: every result once, in any number of processes; a lost process and an error of the work end it by name."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time

import pytest

from segpipe.data import process_pool
from segpipe.concurrency import map_in_processes
from segpipe.errors import DataError


def in_a_worker(seconds: float = 0.001) -> bool:
    """Whether this is another process than that of the test, which is slow, so that the others start in time."""
    worker = multiprocessing.parent_process() is not None
    time.sleep(seconds if worker else 0.2)
    return worker


def square(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def work_or_die(number: int) -> int:
    if in_a_worker() and number == 23:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail(number: int) -> int:
    if in_a_worker() and number == 40:
        raise LookupError("forty")
    return number


def hang(number: int) -> int:
    in_a_worker(seconds=600)
    return number


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_pool, "ALONE_S", 0.0)
    monkeypatch.setattr(process_pool, "WORTH_S", 0.0)


def children() -> int:
    return len(multiprocessing.active_children())


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("count", [0, 1, 5, 400])
def test_every_item_has_its_result(jobs: int, count: int) -> None:
    found = dict(map_in_processes(square, range(count), jobs, str))
    assert {place: result for place, (result, _) in found.items()} == {i: i * i for i in range(count)}
    assert children() == 0


def test_little_work_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_pool, "ALONE_S", 0.01)
    monkeypatch.setattr(process_pool, "WORTH_S", 3600.0)
    here = {pid for _, (_, pid) in map_in_processes(square, range(400), 2, str)}
    assert here == {os.getpid()}


def test_a_lost_process_is_an_error_with_the_file() -> None:
    items = [0] * 400 + [23] + [0] * 30
    with pytest.raises(DataError, match=r"image-23: the process that read this file was lost .*SIGKILL.*memory"):
        list(map_in_processes(work_or_die, items, 2, lambda number: f"image-{number}"))
    assert children() == 0


def test_an_error_of_the_work_is_raised_with_its_trace() -> None:
    items = [0] * 400 + [40]
    with pytest.raises(LookupError, match="forty") as caught:
        list(map_in_processes(fail, items, 2, str))
    assert any("in fail" in note for note in getattr(caught.value, "__notes__", []))
    assert children() == 0


def test_a_consumer_that_stops_leaves_no_process() -> None:
    with contextlib.closing(map_in_processes(hang, range(1000), 2, str)) as results:
        seen = next(number for number, _ in enumerate(results) if children() == 2)
    assert seen < 1000
    assert children() == 0

"""Shared work: every result once, in any number of processes; a lost process and an error of the work end it by name."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time

import pytest

from segpipe.data import workers
from segpipe.data.workers import share
from segpipe.errors import DataError


def square(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def work_or_die(number: int) -> int:
    time.sleep(0.05)
    if number == 23 and multiprocessing.parent_process() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail(number: int) -> int:
    time.sleep(0.02)
    if number == 40:
        raise LookupError("forty")
    return number


def rest(number: int) -> int:
    time.sleep(0.05 if multiprocessing.parent_process() is None or number < 30 else 600)
    return number


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "ALONE_S", 0.0)


def children() -> int:
    return len(multiprocessing.active_children())


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("count", [0, 1, 5, 400])
def test_every_item_has_its_result(jobs: int, count: int) -> None:
    found = dict(share(square, range(count), jobs, str))
    assert {place: result for place, (result, _) in found.items()} == {i: i * i for i in range(count)}
    assert children() == 0


def test_a_lost_process_is_an_error_with_the_file() -> None:
    items = [0] * 120 + [23] + [0] * 30  # when it comes, the others have started
    with pytest.raises(DataError, match=r"image-23: the process that read this file was lost .*SIGKILL.*memory"):
        list(share(work_or_die, items, 2, lambda number: f"image-{number}"))
    assert children() == 0


def test_an_error_of_the_work_is_raised_with_its_trace() -> None:
    items = [0] * 150 + [40]
    with pytest.raises(LookupError, match="forty") as caught:
        list(share(fail, items, 2, str))
    assert any("in fail" in note for note in getattr(caught.value, "__notes__", []))
    assert children() == 0


def test_a_consumer_that_stops_leaves_no_process() -> None:
    began = time.monotonic()
    with contextlib.closing(share(rest, range(1000), 2, str)) as results:
        for _ in results:
            if children() == 2 and time.monotonic() - began > 1:
                break
    assert children() == 0

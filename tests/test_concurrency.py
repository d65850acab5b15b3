"""Work in processes: each item has one result, a lost process and an error of the function are raised, and no process remains."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time

import pytest

from segpipe import concurrency
from segpipe.concurrency import map_in_processes
from segpipe.errors import DataError


def in_a_worker(seconds: float = 0.001) -> bool:
    """Return whether this is a worker process. The test's own process sleeps longer, so that the workers start in time."""
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
def workers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the worker processes after the first item."""
    monkeypatch.setattr(concurrency, "TRIAL_S", 0.0)
    monkeypatch.setattr(concurrency, "MIN_REMAINING_S", 0.0)


def count_children() -> int:
    return len(multiprocessing.active_children())


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("count", [0, 1, 5, 400])
def test_every_item_has_its_result(jobs: int, count: int) -> None:
    results = dict(map_in_processes(square, range(count), jobs, str))
    assert {index: result for index, (result, _) in results.items()} == {i: i * i for i in range(count)}
    assert count_children() == 0


def test_little_work_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrency, "TRIAL_S", 0.01)
    monkeypatch.setattr(concurrency, "MIN_REMAINING_S", 3600.0)
    process_ids = {process_id for _, (_, process_id) in map_in_processes(square, range(400), 2, str)}
    assert process_ids == {os.getpid()}


def test_a_lost_process_is_an_error_that_names_the_item() -> None:
    items = [0] * 400 + [23] + [0] * 30
    with pytest.raises(
        DataError, match=r"image-23: the process that read this file ended unexpectedly .*SIGKILL.*memory"
    ):
        list(map_in_processes(work_or_die, items, 2, lambda number: f"image-{number}"))
    assert count_children() == 0


def test_an_error_of_the_function_is_raised_with_its_traceback() -> None:
    items = [0] * 400 + [40]
    with pytest.raises(LookupError, match="forty") as caught:
        list(map_in_processes(fail, items, 2, str))
    assert any("in fail" in note for note in getattr(caught.value, "__notes__", []))
    assert count_children() == 0


def test_closing_the_generator_early_leaves_no_process() -> None:
    with contextlib.closing(map_in_processes(hang, range(1000), 2, str)) as results:
        processed = next(number for number, _ in enumerate(results) if count_children() == 2)
    assert processed < 1000
    assert count_children() == 0

"""Work shared among processes: results as they come, a named error where a process is lost, and all of them gone at the end."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from segpipe.errors import DataError

T = TypeVar("T")
R = TypeVar("R")

ALONE_S = 0.1
"""Seconds for which one process works alone: what they show of the pace tells whether others are worth starting."""

WORTH_S = 1.0
"""Seconds of work that must be left for others to be started: they take about half as long to be of use."""

_AHEAD = 4
"""Items that a worker has before it, so that it never waits for more."""


@dataclass
class _Worker(Generic[T]):
    """A process, the way to it, and the items that it has not answered yet, oldest first."""

    process: BaseProcess
    pipe: connection.Connection
    pending: deque[tuple[int, T]] = field(default_factory=deque)

    def feed(self, queue: Iterator[tuple[int, T]]) -> None:
        """Give it items up to `_AHEAD`, as long as there are some."""
        while len(self.pending) < _AHEAD and (task := next(queue, None)) is not None:
            self.pending.append(task)
            self.pipe.send(task[1])


def map_in_processes(
    work: Callable[[T], R], items: Sequence[T], jobs: int, name: Callable[[T], str]
) -> Generator[tuple[int, R], None, None]:
    """Yield (place of the item, `work(item)`) in the order in which results come, from up to `jobs` processes.

    `work` must be importable. One process works alone for `ALONE_S` seconds, and on while others start, if at its pace `WORTH_S`
    seconds are left. Each holds one item at a time. Raises DataError, with the item's `name`, where a process dies; what `work`
    raises, is raised. Whatever ends this (an error, Ctrl-C, a consumer that stops), the processes are ended with it.
    """
    began = time.monotonic()
    queue = iter(enumerate(items))
    with contextlib.ExitStack() as stack:
        workers: list[_Worker[T]] = []
        for done, (place, item) in enumerate(queue, start=1):
            yield place, work(item)
            alone, left = time.monotonic() - began, len(items) - done
            if jobs > 1 and not workers and alone >= ALONE_S and left * alone / done >= WORTH_S:
                workers = stack.enter_context(_started(work, min(jobs, len(items) - done)))
            if workers and connection.wait([worker.pipe for worker in workers], timeout=0):
                break
        yield from _collect(workers, queue, name)


def _collect(
    workers: list[_Worker[T]], queue: Iterator[tuple[int, T]], name: Callable[[T], str]
) -> Iterator[tuple[int, Any]]:
    by_pipe = {worker.pipe: worker for worker in workers}
    for worker in workers:
        worker.feed(queue)
    while busy := [worker.pipe for worker in workers if worker.pending]:
        for pipe in connection.wait(busy):
            worker = by_pipe[pipe]  # type: ignore[index]
            place, item = worker.pending[0]
            answer = _receive(worker, name(item))
            if answer is None:
                continue
            worker.pending.popleft()
            worker.feed(queue)
            yield place, answer[0]


def _receive(worker: _Worker[T], item: str) -> tuple[Any] | None:
    """The next result in a tuple; None where the process says that it has started."""
    try:
        answer, error, trace = worker.pipe.recv()
    except (EOFError, OSError) as lost:
        worker.process.join(timeout=5)
        code = worker.process.exitcode
        how = (
            f"ended by signal {signal.Signals(-code).name}"
            if code is not None and code < 0
            else f"ended with code {code}"
        )
        raise DataError(
            "the process that read this file was lost", where=item, found=how, expected="a process that lives",
            fix="SIGKILL is mostly a want of memory: free some, cut the image into tiles, or lower data.max_megapixels",
        ) from lost
    if error is not None:
        error.add_note(trace)
        raise error
    return answer


@contextlib.contextmanager
def _started(work: Callable[[T], Any], count: int) -> Iterator[list[_Worker[T]]]:
    # a fork of this process, which may run threads (torch, Arrow), may hang; a server that has imported what `work` needs, and runs
    # none, forks each worker in milliseconds
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__, _module(work)])
    workers: list[_Worker[T]] = []
    try:
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, work), daemon=True)
            workers.append(_Worker(process, ours))
            process.start()
            theirs.close()  # the only other end: when the process dies, reading ours tells
        yield workers
    finally:
        for worker in workers:
            if worker.process.pid is not None:
                worker.process.kill()
                worker.process.join()
            worker.pipe.close()


def _module(work: Callable[..., Any]) -> str:
    return _module(work.func) if isinstance(work, functools.partial) else work.__module__


def _serve(pipe: connection.Connection, work: Callable[[Any], Any]) -> None:
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the first process ends the others
    cv2.setNumThreads(1)
    pipe.send((None, None, ""))
    with contextlib.suppress(EOFError, BrokenPipeError):  # the first process is gone
        while True:
            item = pipe.recv()
            try:
                answer = (work(item),), None, ""
            except Exception as error:  # noqa: BLE001  raised where the results are wanted
                answer = None, error, traceback.format_exc()  # type: ignore[assignment]
            pipe.send(answer)

"""Parallel maps with bounded memory: `map_ahead` in threads, `map_in_processes` in child processes.

Threads suit functions that release the interpreter lock, such as image decoders. Processes suit everything else.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from segpipe.errors import DataError

T = TypeVar("T")
R = TypeVar("R")

TRIAL_S = 0.1
"""Seconds for which the calling process works alone, to estimate how long the remaining items will take."""

MIN_REMAINING_S = 1.0
"""Worker processes are started only if at least this many seconds of work remain: starting them takes about half a second."""

_QUEUED_ITEMS = 4
"""Items sent to a worker ahead of its results, so that it never waits for the next one."""


def map_ahead(
    function: Callable[[T], R], items: Iterable[T], jobs: int, limit: Callable[[], int] | None = None
) -> Generator[tuple[T, Future[R]], None, None]:
    """Call a function on each item in threads, a bounded number of items ahead of the result in use.

    Args:
        function: called in the threads.
        items: read in the calling thread, one at a time.
        jobs: the number of threads.
        limit: returns how many items may be in work or waiting at once, at least 1. It is called before each item is started.
            By default two items per thread.

    Yields:
        Each item with the future of its result, in the order of `items`. The future may not be done yet, and may hold an
        exception of `function`.
    """
    ahead: deque[tuple[T, Future[R]]] = deque()
    pending = iter(items)
    with ThreadPoolExecutor(jobs) as pool:
        try:
            exhausted = False
            while True:
                while not exhausted and len(ahead) < max(1, limit() if limit else 2 * jobs):
                    try:
                        item = next(pending)
                    except StopIteration:
                        exhausted = True
                    else:
                        ahead.append((item, pool.submit(function, item)))
                        del item
                if not ahead:
                    return
                yield ahead.popleft()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def map_in_processes(
    function: Callable[[T], R], items: Sequence[T], jobs: int, name: Callable[[T], str]
) -> Generator[tuple[int, R], None, None]:
    """Call a function on each item in child processes, and yield the results in the order in which they arrive.

    The calling process works alone for `TRIAL_S` seconds. If at its pace at least `MIN_REMAINING_S` seconds of work remain, it
    starts the worker processes, and goes on working until the first of them is ready. All workers are ended when the generator
    ends: after the last result, after an error or Ctrl-C, and when the caller closes the generator early.

    Args:
        function: called in the processes, on one item at a time. It must be importable (a module-level function, or a
            `functools.partial` of one).
        items: the items to process; they must be picklable.
        jobs: the largest number of processes.
        name: returns the name of an item for error messages.

    Yields:
        The index of an item in `items`, and the result of the function.

    Raises:
        DataError: if a worker process ends unexpectedly; the error names the item it was working on.
        Exception: whatever `function` raises, with the worker's traceback as a note.
    """
    start = time.monotonic()
    queue = iter(enumerate(items))
    with contextlib.ExitStack() as stack:
        workers: list[_Worker[T]] = []
        for done, (index, item) in enumerate(queue, start=1):
            yield index, function(item)
            elapsed, remaining = time.monotonic() - start, len(items) - done
            if jobs > 1 and not workers and elapsed >= TRIAL_S and remaining * elapsed / done >= MIN_REMAINING_S:
                workers = stack.enter_context(_started_workers(function, min(jobs, remaining)))
            if workers and connection.wait([worker.pipe for worker in workers], timeout=0):
                break
        yield from _collect_results(workers, queue, name)


@dataclass
class _Worker(Generic[T]):
    """A worker process, the pipe to it, and the items that it has not answered yet, oldest first."""

    process: BaseProcess
    pipe: connection.Connection
    pending: deque[tuple[int, T]] = field(default_factory=deque)

    def feed(self, queue: Iterator[tuple[int, T]]) -> None:
        """Send items from the queue until `_QUEUED_ITEMS` are pending or the queue is empty."""
        while len(self.pending) < _QUEUED_ITEMS and (task := next(queue, None)) is not None:
            self.pending.append(task)
            self.pipe.send(task[1])


def _collect_results(
    workers: list[_Worker[T]], queue: Iterator[tuple[int, T]], name: Callable[[T], str]
) -> Iterator[tuple[int, Any]]:
    for worker in workers:
        worker.feed(queue)
    while busy := [worker for worker in workers if worker.pending]:
        ready = connection.wait([worker.pipe for worker in busy])
        for worker in busy:
            if worker.pipe not in ready:
                continue
            index, item = worker.pending[0]
            answer = _receive(worker, name(item))
            if answer is None:
                continue
            worker.pending.popleft()
            worker.feed(queue)
            yield index, answer[0]


def _receive(worker: _Worker[T], item_name: str) -> tuple[Any] | None:
    """Return the next result in a tuple, or None if the message says only that the process has started."""
    try:
        answer, error, trace = worker.pipe.recv()
    except (EOFError, OSError) as lost:
        worker.process.join(timeout=5)
        code = worker.process.exitcode
        reason = (
            f"it was ended by signal {signal.Signals(-code).name}"
            if code is not None and code < 0
            else f"exit code {code}"
        )
        raise DataError(
            "the process that read this file ended unexpectedly",
            where=item_name,
            found=reason,
            fix="SIGKILL usually means that memory ran out: free memory, cut the image into tiles, or lower data.max_megapixels",
        ) from lost
    if error is not None:
        error.add_note(trace)
        raise error
    return answer


@contextlib.contextmanager
def _started_workers(function: Callable[[T], Any], count: int) -> Iterator[list[_Worker[T]]]:
    # Forking this process could hang, because it may run threads (torch, Arrow). The fork server runs none. It imports the modules
    # that `function` needs once, and then forks each worker in milliseconds.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__, _module_of(function)])
    workers: list[_Worker[T]] = []
    try:
        for _ in range(count):
            parent_end, child_end = context.Pipe()
            process = context.Process(target=_serve, args=(child_end, function), daemon=True)
            workers.append(_Worker(process, parent_end))
            process.start()
            child_end.close()  # the worker holds the only other end: if it dies, reading from ours fails at once
        yield workers
    finally:
        for worker in workers:
            if worker.process.pid is not None:
                worker.process.kill()
                worker.process.join()
            worker.pipe.close()


def _module_of(function: Callable[..., Any]) -> str:
    return _module_of(function.func) if isinstance(function, functools.partial) else function.__module__


def _serve(pipe: connection.Connection, function: Callable[[Any], Any]) -> None:
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent ends the workers
    cv2.setNumThreads(1)
    pipe.send((None, None, ""))
    with contextlib.suppress(EOFError, BrokenPipeError):  # the parent is gone
        while True:
            item = pipe.recv()
            answer: tuple[tuple[Any] | None, Exception | None, str]
            try:
                answer = (function(item),), None, ""
            except Exception as error:  # noqa: BLE001  raised in the parent process
                answer = None, error, traceback.format_exc()
            pipe.send(answer)

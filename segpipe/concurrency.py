"""Compute results ahead of their use in threads, for code that releases the interpreter lock, such as image decoders."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_ahead(
    function: Callable[[T], R], items: Iterable[T], jobs: int, limit: Callable[[], int] | None = None
) -> Iterator[tuple[T, Future[R]]]:
    """Call a function on each item in threads, a bounded number of items ahead of the result in use.

    Args:
        function: called in the threads.
        items: read in the calling thread, one at a time.
        jobs: the number of threads.
        limit: returns how many items may be in progress or waiting at once; called before each item is started. At least 1; by default
            two per thread.

    Yields:
        Each item with the future of its result, in order. The future may not be done yet, or may hold the function's exception.
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

"""Work on every item by threads, a few ahead of the one whose turn it is: memory is bounded by so many images."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from segpipe.data.dataset import Item
from segpipe.data.exporters.report import ExportReport
from segpipe.errors import DataError
from segpipe.progress import track

T = TypeVar("T")


def each_item(
    work: Callable[[Item], T], items: Sequence[Item], report: ExportReport, jobs: int | None
) -> Iterator[tuple[Item, T]]:
    """(item, work(item)), in order. An item whose files are broken, or that the layout has no place for (a DataError), is left out
    and listed; `report.images` counts the others."""
    for item, future in track(_ahead(work, items, jobs or os.cpu_count() or 1), "exporting", len(items)):
        try:
            done = future.result()
        except DataError as error:
            report.left_out.append((item.key, str(error)))
            continue
        report.images += 1
        yield item, done


def _ahead(work: Callable[[Item], T], items: Sequence[Item], jobs: int) -> Iterator[tuple[Item, Future[T]]]:
    with ThreadPoolExecutor(jobs) as pool:
        ahead: deque[tuple[Item, Future[T]]] = deque()
        try:
            for item in items:
                ahead.append((item, pool.submit(work, item)))
                if len(ahead) >= 2 * jobs:
                    yield ahead.popleft()
            while ahead:
                yield ahead.popleft()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

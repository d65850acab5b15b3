"""Run the work of an export in threads, a bounded number of images ahead, which bounds the memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from segpipe.concurrency import map_ahead
from segpipe.data.dataset import Item
from segpipe.data.exporters.report import ExportReport
from segpipe.errors import DataError
from segpipe.progress import track

T = TypeVar("T")


def map_items(
    work: Callable[[Item], T], items: Sequence[Item], report: ExportReport, jobs: int | None
) -> Iterator[tuple[Item, T]]:
    """Call a function on each item in threads.

    An item for which the function raises DataError (its files are damaged, or the format cannot store it) is added to
    `report.left_out`. The others are counted in `report.images`.

    Args:
        work: the function.
        items: the items.
        report: the report of the export.
        jobs: the number of threads, by default one per core.

    Yields:
        Each item with the result of the function, in the order of `items`.
    """
    # closed here, so that no thread still writes when the caller removes the folder after an error
    with contextlib.closing(map_ahead(work, items, jobs or os.cpu_count() or 1)) as results:
        for item, future in track(results, "exporting", len(items)):
            try:
                result = future.result()
            except DataError as error:
                report.left_out.append((item.key, str(error)))
                continue
            report.images += 1
            yield item, result

"""Work on every item by threads, a few ahead of the one whose turn it is: memory is bounded by so many images."""

from __future__ import annotations

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
    """(item, work(item)), in order. An item whose files are broken, or that the layout has no place for (a DataError), is left out
    and listed; `report.images` counts the others."""
    for item, future in track(map_ahead(work, items, jobs or os.cpu_count() or 1), "exporting", len(items)):
        try:
            done = future.result()
        except DataError as error:
            report.left_out.append((item.key, str(error)))
            continue
        report.images += 1
        yield item, done

"""Build the manifest: one row per image, described in `segpipe.data.manifest.columns`."""

from __future__ import annotations

import contextlib
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from segpipe.concurrency import map_in_processes
from segpipe.config import DataParams, SplitParams
from segpipe.data.dataset import Dataset, Item
from segpipe.data.few_groups import imbalances
from segpipe.data.manifest.cache import describe_unless_cached, open_cache
from segpipe.data.manifest.columns import Row
from segpipe.data.manifest.describe import describe_orphan
from segpipe.data.manifest.table import to_frame
from segpipe.data.splits import assign_folds, assign_splits
from segpipe.progress import track

if TYPE_CHECKING:
    import pandas as pd


def build_manifest(
    dataset: Dataset, limits: DataParams, split: SplitParams, jobs: int | None = None, cache: Path | None = None
) -> pd.DataFrame:
    """Describe every image of a dataset, and assign it to a split and a fold.

    A file that cannot be read raises nothing: its row has an `error`.

    Args:
        dataset: the images of data/.
        limits: how large files may be, and how pages of TIFF files are read.
        split: how images without a given split are assigned to one. If `split.method` is `ranges`, each part of a group that is
            cut becomes a group of its own.
        jobs: the largest number of processes, by default one per core. More than one is started only if the work takes longer
            than about a second. Each process holds one image in memory.
        cache: a folder that keeps rows between runs: unchanged files are not decoded again, and rows that were ready before an
            interruption are not lost.

    Returns:
        The manifest, sorted by key; `segpipe.data.manifest.columns` documents its columns.
    """
    rows: list[Row | None]
    with open_cache(cache, dataset, limits) as row_cache:
        rows = [row_cache.find_unchanged(item) for item in dataset.items]
        remaining = [index for index, row in enumerate(rows) if row is None]
        describe = partial(
            describe_unless_cached,
            root=dataset.root,
            classes=dataset.classes,
            limits=limits,
            settings_hash=row_cache.settings_hash,
            cached_keys=frozenset(row_cache.rows),
        )
        items = [dataset.items[index] for index in remaining]
        results = map_in_processes(describe, items, jobs or os.cpu_count() or 1, _file_name)
        with contextlib.closing(results):
            for position, row in track(results, "reading images", len(items)):
                rows[remaining[position]] = row_cache.store(row)
    filled = [row for row in rows if row is not None]
    filled += [describe_orphan(path, dataset.root) for path in dataset.orphans]
    _name_channels(filled, dataset.channels)
    parts = assign_splits(filled, split)
    for row, part, fold in zip(filled, parts, assign_folds(filled, split), strict=True):
        if split.method == "ranges" and row["group"] and not row["split_given"]:
            row["group"] = f"{row['group']} ({part or 'gap'})"  # a group must not be in two splits
        row["split"], row["fold"] = part, fold
    return to_frame(sorted(filled, key=lambda row: (row["key"], row["path"])))


def _name_channels(rows: list[Row], channels: tuple[str, ...]) -> None:
    """Give the channels of images whose files do not name them the names of dataset.yaml, if these are as many."""
    for row in rows:
        if not row["channel_names"] and row["channels"] == len(channels) > 0:
            row["channel_names"] = list(channels)


def balance_notes(manifest: pd.DataFrame, split: SplitParams) -> list[str]:
    """Return in words what the splits of few groups could not balance; see `segpipe.data.few_groups.imbalances`.

    Args:
        manifest: as `build_manifest` returns it.
        split: how images were assigned to splits.
    """
    rows = [
        {
            "group": row["group"] if isinstance(row["group"], str) else None,
            "split": row["split"] if row["split_given"] else None,
            "class_pixels": row["class_pixels"],
        }
        for row in manifest.to_dict("records")
    ]
    return imbalances(rows, manifest["split"].tolist(), split)


def _file_name(item: Item) -> str:
    return item.image.name

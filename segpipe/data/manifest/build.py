"""The manifest: one row an image with all that later stages need to know without opening it again, and its summary, the fingerprint.

| column | |
|---|---|
| key, group, split, split_given | who it is and where it belongs; `split_given`: samples.csv said so; no split: in a gap between ranges |
| fold | 0 .. k - 1, where folds are wanted |
| path, mask_path, instances_path | relative to data/ |
| sha256, mask_sha256, instances_sha256 | of the files' bytes |
| phash | perceptual hash (DCT) of the image or of a volume's middle slice, 16 hexadecimal digits |
| miniature | the same at 48 x 48 pixels in grey, 2,304 bytes: by them near-duplicates are told where hashes differ |
| depth, height, width, channels, dtype, mask_depth, mask_height, mask_width | sizes in pixels; no depth for an image (2D) |
| spacing, mask_spacing | size of a voxel in mm, (D, H, W); only where the file tells it |
| orientation, mask_orientation | axis codes of the file's affine, "RAS" for one; only where the file tells it |
| mask_offset | how far, in voxels, the mask's header puts a corner from where the image's does; only where both tell, of one size |
| mean, std, low, high | a list each, by channel, of stored values of all pixels; low and high are the 0.5th and 99.5th percentile |
| sharpness | variance of the Laplacian of the grey image, whose own window is scaled to 0..1 (`measure.sharpness`) |
| class_pixels, ignored_pixels | pixels by class id, and of ignored values |
| unknown_values | JSON {value: pixels} of what the class table does not know |
| smallest_component | pixels of the smallest connected region of any class but the background (8 neighbours, in a volume 26); \
none where there is no region, or far too many (`regions.MAX_RUNS`) |
| n_instances, instance_areas | objects, and the pixels of each in the order of their ids, where the dataset has them |
| notes | what reading converted: "alpha channel dropped", "mask: 1-bit grey spread over 0 to 255" |
| error | why the row could not be filled; None for a good one |
"""

from __future__ import annotations

import contextlib
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from segpipe.config import DataParams, SplitParams
from segpipe.data.manifest.cache import describe_unless_cached, open_cache
from segpipe.data.dataset import Dataset, Item
from segpipe.data.manifest.columns import Row
from segpipe.data.manifest.describe import describe_orphan
from segpipe.data.manifest.fingerprint import Fingerprint, Range, intensity_statistics, make_fingerprint
from segpipe.data.splits import assign_folds, assign_splits
from segpipe.data.manifest.table import read_manifest, to_frame, usable, write_manifest
from segpipe.concurrency import map_in_processes
from segpipe.progress import track

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Fingerprint", "Range", "build_manifest", "intensities", "make_fingerprint", "read_manifest", "usable", "write_manifest",
]


def build_manifest(
    dataset: Dataset, limits: DataParams, split: SplitParams, jobs: int | None = None, cache: Path | None = None
) -> pd.DataFrame:
    """Describe every file, in key order. A bad file is a row with `error`; nothing is raised for it.

    A row's split is the given one, or drawn as `split` says; of a group that is cut into ranges, each part is a group of its own.
    `jobs` processes (one a core) share the work where it takes longer than a second; each holds one image at a time. `cache` is a
    folder in which rows are remembered: files that did not change since are not decoded, and what was read before an interruption
    is not lost.
    """
    rows: list[Row | None]
    with open_cache(cache, dataset, limits) as known:
        rows = [known.recall(item) for item in dataset.items]
        todo = [place for place, row in enumerate(rows) if row is None]
        describe = partial(
            describe_unless_cached, root=dataset.root, classes=dataset.classes, limits=limits,
            recipe=known.recipe, known=frozenset(known.rows),
        )
        answers = map_in_processes(describe, [dataset.items[place] for place in todo], jobs or os.cpu_count() or 1, _name)
        with contextlib.closing(answers):
            for place, row in track(answers, "reading images", len(todo)):
                rows[todo[place]] = known.keep(row)
    filled = [row for row in rows if row is not None] + [
        describe_orphan(path, dataset.root) for path in dataset.orphans
    ]
    for row, part, fold in zip(filled, assign_splits(filled, split), assign_folds(filled, split), strict=True):
        if split.method == "ranges" and row["group"] and not row["split_given"]:
            row["group"] = f"{row['group']} ({part or 'gap'})"  # what stands in two splits is no group
        row["split"], row["fold"] = part, fold
    return to_frame(sorted(filled, key=lambda row: (row["key"], row["path"])))


def _name(item: Item) -> str:
    return item.image.name

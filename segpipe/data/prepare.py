"""Write the shards: the decoded samples of each split, ready for training."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from segpipe.config import DataParams
from segpipe.data.dataset import SAMPLES_FILE, Dataset, load_samples
from segpipe.data.manifest.fingerprint import make_fingerprint
from segpipe.data.manifest.table import usable
from segpipe.data.sample_columns import read_extra_columns
from segpipe.data.shards import write_shards
from segpipe.data.splits import FOLDS_FILE
from segpipe.files import atomic_folder, atomic_path, write_json
from segpipe.progress import track

if TYPE_CHECKING:
    import pandas as pd


def prepare_shards(
    dataset: Dataset,
    manifest: pd.DataFrame,
    quarantined: Collection[str],
    data: Path,
    limits: DataParams,
    shards: Path,
    splits: Path,
) -> int:
    """Write the shards of all splits, and the table of splits.

    If quarantine leaves images out, a fingerprint of the remaining images is written next to the shards, so that plans count only
    those. If `split.folds` is set, the fold of each image of train and val is written next to them, too.

    Args:
        dataset: the images of data/.
        manifest: one row per image (`segpipe.data.manifest.columns`).
        quarantined: the paths of images that validation leaves out, relative to data/.
        data: the folder of the dataset; the metadata columns of its samples.csv are copied into the table of splits.
        limits: how large files may be, and how pages of TIFF files are read.
        shards: the folder to write; it is replaced as a whole.
        splits: the Parquet file to write, one row per image: key, path, mask_path, group, split, fold, and the metadata columns.

    Returns:
        The number of images in the shards.
    """
    remaining = manifest[~manifest["path"].isin(quarantined)]
    rows = remaining[usable(remaining)]
    items = {item.key: item for item in dataset.items}
    with atomic_folder(shards) as folder:
        for split, part in rows.groupby("split", sort=True):
            samples = load_samples([items[key] for key in part["key"]], dataset.classes, limits)
            write_shards(folder, str(split), track(samples, f"prepare {split}", len(part)), dataset.classes.labelling)
        if len(rows) < usable(manifest).sum():
            make_fingerprint(remaining, dataset.classes, limits.pages).write(folder / "fingerprint.json")
        if rows["fold"].notna().any():
            in_folds = rows[rows["split"] != "test"]
            write_json(folder / FOLDS_FILE, dict(zip(in_folds["key"], map(int, in_folds["fold"]), strict=True)))
    with atomic_path(splits) as target:
        columns = rows[["key", "path", "mask_path", "group", "split", "fold"]]
        columns.join(read_extra_columns(data / SAMPLES_FILE), on="key").to_parquet(target, index=False)
    return len(rows)

"""From validated images to shards: decoded samples by split, ready to be trained on."""

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

    Where quarantine leaves images out, the shards get a fingerprint of their own, so that plans count only images that are trained
    on. Where `split.folds` is set, the fold of each image of train and val is written beside them.

    Args:
        dataset: the images of data/.
        manifest: one row per image.
        quarantined: paths of images that validation leaves out.
        data: the folder of the dataset; the further columns of its samples.csv are copied into the table of splits.
        limits: how images are read.
        shards: the folder to write; it is replaced as a whole.
        splits: the Parquet file to write.

    Returns:
        The number of images in the shards.
    """
    kept = manifest[~manifest["path"].isin(quarantined)]
    rows = kept[usable(kept)]
    items = {item.key: item for item in dataset.items}
    with atomic_folder(shards) as folder:
        for split, part in rows.groupby("split", sort=True):
            samples = load_samples([items[key] for key in part["key"]], dataset.classes, limits)
            write_shards(folder, str(split), track(samples, f"prepare {split}", len(part)), dataset.classes.labelling)
        if len(rows) < usable(manifest).sum():
            make_fingerprint(kept, dataset.classes).write(folder / "fingerprint.json")
        if rows["fold"].notna().any():
            in_folds = rows[rows["split"] != "test"]
            write_json(folder / FOLDS_FILE, dict(zip(in_folds["key"], map(int, in_folds["fold"]), strict=True)))
    with atomic_path(splits) as target:
        columns = rows[["key", "path", "mask_path", "group", "split", "fold"]]
        columns.join(read_extra_columns(data / SAMPLES_FILE), on="key").to_parquet(target, index=False)
    return len(rows)

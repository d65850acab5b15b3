"""The manifest as a table: read and write it as Parquet, and select usable rows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from segpipe.data.manifest.columns import COLUMNS, Row
from segpipe.errors import DataError
from segpipe.files import atomic_path

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def write_manifest(frame: pd.DataFrame, path: Path) -> None:
    """Write a manifest as a Parquet file, atomically. The same rows give the same bytes.

    Args:
        frame: one row per image (`segpipe.data.manifest.columns`).
        path: the file to write.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with atomic_path(path) as temporary:
        table = pa.Table.from_pandas(frame, schema=arrow_schema(COLUMNS), preserve_index=False)
        pq.write_table(table, temporary, compression="zstd")


def read_manifest(path: Path) -> pd.DataFrame:
    """Read a manifest that `write_manifest` wrote.

    Args:
        path: the Parquet file.

    Returns:
        One row per image (`segpipe.data.manifest.columns`). Missing integers are NA, other missing values None.

    Raises:
        DataError: if the file is not a manifest, or one of another version.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"is not a manifest: {error}", where=path, fix="`dvc repro ingest` writes it again") from error
    if not table.schema.equals(arrow_schema(COLUMNS)):
        raise DataError(
            "is a manifest of another version of segpipe",
            where=path,
            fix="`dvc repro --force --single-item ingest` writes it again",
        )
    return _to_frame(table)


def usable(frame: pd.DataFrame) -> pd.Series:
    """Select the rows that training and evaluation can use: readable, with a mask of the image's size, and in a split.

    Args:
        frame: a manifest (`segpipe.data.manifest.columns`).

    Returns:
        A boolean series with the index of the manifest.
    """
    sizes = (frame["height"] == frame["mask_height"]) & (frame["width"] == frame["mask_width"])
    depths = (frame["depth"].fillna(0) == frame["mask_depth"].fillna(0)).fillna(False)
    return (
        frame["error"].isna() & frame["mask_path"].notna() & frame["split"].notna() & sizes.fillna(False) & depths
    ).astype(bool)


def labelled_pixels(frame: pd.DataFrame, overlapping: bool) -> npt.NDArray[np.int64]:
    """Count the pixels of each row that have at least one class.

    Args:
        frame: a manifest (`segpipe.data.manifest.columns`).
        overlapping: True if a pixel may have several classes. The counts of the classes then do not add up to pixels.

    Returns:
        (n,), the number of pixels of each row; 0 for a row without a mask.
    """
    if not overlapping:
        counts = [np.sum(pixels) if isinstance(pixels, np.ndarray) else 0 for pixels in frame["class_pixels"]]
        return np.array(counts, np.int64)
    sizes = frame["mask_depth"].fillna(1), frame["mask_height"].fillna(0), frame["mask_width"].fillna(0)
    depth, height, width, ignored = (c.to_numpy(np.int64) for c in (*sizes, frame["ignored_pixels"].fillna(0)))
    unknown = [sum(json.loads(text).values()) if isinstance(text, str) else 0 for text in frame["unknown_values"]]
    labelled: npt.NDArray[np.int64] = depth * height * width - ignored - np.array(unknown, np.int64)
    return labelled


def arrow_schema(columns: Iterable[str]) -> pa.Schema:
    """Return the Arrow schema of some columns of the manifest."""
    import pyarrow as pa

    types = {
        str: pa.string(),
        bytes: pa.binary(),
        int: pa.int64(),
        bool: pa.bool_(),
        float: pa.float64(),
        list[float]: pa.list_(pa.float64()),
        list[int]: pa.list_(pa.int64()),
        list[str]: pa.list_(pa.string()),
    }
    return pa.schema([(name, types[COLUMNS[name]]) for name in columns])


def to_frame(rows: list[Row]) -> pd.DataFrame:
    """Return rows as a data frame. Missing integers are NA, other missing values None."""
    import pyarrow as pa

    return _to_frame(pa.Table.from_pylist(rows, schema=arrow_schema(COLUMNS)))


def _to_frame(table: pa.Table) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa

    return table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)

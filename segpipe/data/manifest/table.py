"""The manifest as a table: its columns as Parquet and as a frame."""

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
    """Write a manifest as Parquet, atomically; the same rows give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with atomic_path(path) as temporary:
        table = pa.Table.from_pandas(frame, schema=arrow_schema(COLUMNS), preserve_index=False)
        pq.write_table(table, temporary, compression="zstd")


def read_manifest(path: Path) -> pd.DataFrame:
    """A manifest that `write_manifest` wrote."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"is no manifest: {error}", where=path, fix="`dvc repro ingest` writes it anew") from error
    if not table.schema.equals(arrow_schema(COLUMNS)):
        raise DataError(
            "is a manifest of another version",
            where=path,
            fix="`dvc repro --force --single-item ingest` writes it anew",
        )
    return _to_frame(table)


def usable(frame: pd.DataFrame) -> pd.Series:
    """True for rows that can be trained on: readable, with a mask of the image's size, and in a split."""
    sizes = (frame["height"] == frame["mask_height"]) & (frame["width"] == frame["mask_width"])
    depths = (frame["depth"].fillna(0) == frame["mask_depth"].fillna(0)).fillna(False)
    return (
        frame["error"].isna() & frame["mask_path"].notna() & frame["split"].notna() & sizes.fillna(False) & depths
    ).astype(bool)


def labelled_pixels(frame: pd.DataFrame, overlapping: bool) -> npt.NDArray[np.int64]:
    """Pixels that have a class, by row; 0 where there is no mask."""
    if not overlapping:
        return np.array([np.sum(own) if isinstance(own, np.ndarray) else 0 for own in frame["class_pixels"]], np.int64)
    sizes = frame["mask_depth"].fillna(1), frame["mask_height"].fillna(0), frame["mask_width"].fillna(0)
    depth, height, width, ignored = (c.to_numpy(np.int64) for c in (*sizes, frame["ignored_pixels"].fillna(0)))
    unknown = [sum(json.loads(text).values()) if isinstance(text, str) else 0 for text in frame["unknown_values"]]
    labelled: npt.NDArray[np.int64] = depth * height * width - ignored - np.array(unknown, np.int64)
    return labelled


def arrow_schema(columns: Iterable[str]) -> pa.Schema:
    """The Arrow types of some columns."""
    import pyarrow as pa

    types = {
        str: pa.string(), bytes: pa.binary(), int: pa.int64(), bool: pa.bool_(), float: pa.float64(),
        list[float]: pa.list_(pa.float64()), list[int]: pa.list_(pa.int64()), list[str]: pa.list_(pa.string()),
    }
    return pa.schema([(name, types[COLUMNS[name]]) for name in columns])


def to_frame(rows: list[Row]) -> pd.DataFrame:
    """Rows as a frame; what is missing is None, or NA among whole numbers."""
    import pyarrow as pa

    return _to_frame(pa.Table.from_pylist(rows, schema=arrow_schema(COLUMNS)))


def _to_frame(table: pa.Table) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa

    return table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)

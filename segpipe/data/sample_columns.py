"""The extra columns of samples.csv (modality, scanner, stain, site ...), by which scores are reported per slice."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from segpipe.files import read_bytes

if TYPE_CHECKING:
    import pandas as pd

RESERVED_COLUMNS = ("key", "path", "mask_path", "group", "split", "fold")
"""Columns of artifacts/splits.parquet with another meaning: an extra column cannot have one of these names."""

MAX_EXTRA_COLUMNS = 32
_MAX_TABLE_BYTES = 1 << 28


def read_extra_columns(path: Path) -> pd.DataFrame:
    """Return the columns of a samples.csv that are not in `RESERVED_COLUMNS`.

    The content must have been checked by `segpipe.data.dataset.read_samples`.

    Args:
        path: the table; it need not exist.

    Returns:
        Text columns, the first `MAX_EXTRA_COLUMNS` of them, indexed by key; empty words are missing values (None). There are no
        columns if there is no table, or if the table has no extra column.
    """
    import io

    import pandas as pd

    if not path.exists():
        return pd.DataFrame(index=pd.Index([], name="key", dtype=object))
    text = read_bytes(path, _MAX_TABLE_BYTES).decode("utf-8-sig")
    frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, index_col=False).set_index("key")
    names = [
        name
        for name in frame.columns
        if name not in RESERVED_COLUMNS and name.strip() and not name.startswith("Unnamed:")
    ]
    return frame[names[:MAX_EXTRA_COLUMNS]].replace("", None)

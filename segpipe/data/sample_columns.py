"""The columns of samples.csv that people add: modality, scanner, stain, site ... Scores are told by them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from segpipe.files import read_bytes

if TYPE_CHECKING:
    import pandas as pd

RESERVED_COLUMNS = ("key", "path", "mask_path", "group", "split", "fold")
"""Columns of artifacts/splits.parquet that mean something else: no further column may have such a name."""

MAX_EXTRA_COLUMNS = 32
_MAX_TABLE_BYTES = 1 << 28


def read_extra_columns(path: Path) -> pd.DataFrame:
    """The columns of a samples.csv beside those of `TAKEN`, as words, indexed by key; the first `MOST_COLUMNS` of them.

    Empty words are missing ones. Without a file, or where it has no such column, there are none. The table has been checked by
    `segpipe.data.dataset.read_samples` before.
    """
    import io

    import pandas as pd

    if not path.exists():
        return pd.DataFrame(index=pd.Index([], name="key", dtype=object))
    text = read_bytes(path, _MAX_TABLE_BYTES).decode("utf-8-sig")
    frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, index_col=False).set_index("key")
    names = [name for name in frame.columns if name not in RESERVED_COLUMNS and name.strip() and not name.startswith("Unnamed:")]
    return frame[names[:MAX_EXTRA_COLUMNS]].replace("", None)

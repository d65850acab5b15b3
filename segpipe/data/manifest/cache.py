"""A cache of manifest rows, so that unchanged files are neither hashed nor decoded again.

The cache is a folder with two tables. `files` holds the hash of each file with its size, times and inode, as Git and DVC do. `rows`
holds the measured columns of each row under a key that covers everything the row depends on: the hashes of its files, the class
table, the limits, the source code that measures, and the versions of the decoders. Each table begins with a SHA-256 of itself. A
table that is damaged, or that another version wrote, is ignored.
"""

from __future__ import annotations

import contextlib
import functools
import io
import time
from collections.abc import Collection, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from segpipe.config import DataParams
from segpipe.data.dataset import Dataset, Item
from segpipe.data.images import max_bytes
from segpipe.data.manifest.columns import COLUMNS, HASH_COLUMNS, Row
from segpipe.data.manifest.describe import describe_item, describe_paths
from segpipe.data.manifest.table import arrow_schema
from segpipe.errors import DataError
from segpipe.files import read_bytes, sha256_bytes, sha256_file, write_bytes
from segpipe.progress import say
from segpipe.samples import ClassTable

if TYPE_CHECKING:
    import pyarrow as pa

_MEASURED = [
    name for name in COLUMNS if name not in (*HASH_COLUMNS, "key", "group", "split", "split_given", "fold", "error")
]
_DECODERS = ("numpy", "pillow", "tifffile", "imagecodecs", "nibabel")
_SOURCES = ("manifest/describe.py", "manifest/connected_components.py", "images/*.py", "images/formats/*.py")
_MAX_TABLE_BYTES = 1 << 32
_DIGEST_CHARACTERS = 64

_RACY_S = 2.0
"""A file that changed less than this many seconds ago may change again without a difference in its times."""


class RowCache:
    """The rows and file hashes of earlier runs, and those that this run stores.

    `settings_hash` covers everything that rows depend on except their files. `rows` and `hashes` come from earlier runs;
    `stored_rows` and `stored_hashes` are what this run keeps for the next one.
    """

    def __init__(
        self, root: Path, settings_hash: str, hashes: dict[str, tuple[str, str]], rows: dict[str, Row]
    ) -> None:
        self.settings_hash, self.rows, self.hashes = settings_hash, rows, hashes
        self.stored_rows: dict[str, Row] = {}
        self.stored_hashes: dict[str, tuple[str, str]] = {}
        self._root = root
        self._signatures: dict[str, str] = {}

    def find_unchanged(self, item: Item) -> Row | None:
        """Return the cached row of an item if none of its files changed, else None. Opens no file."""
        row = describe_paths(item, self._root)
        unchanged = True
        for path_column, hash_column in HASH_COLUMNS.items():
            if (path := row[path_column]) is None:
                continue
            if signature := _signature(self._root / path):
                self._signatures[path] = signature
            cached_signature, row[hash_column] = self.hashes.get(path, ("", None))
            unchanged &= cached_signature == signature
        if not unchanged:
            return None
        return self.store(row) if row_key(self.settings_hash, row) in self.rows else None

    def store(self, row: Row) -> Row:
        """Store a row and the hashes of its files for the next run, and return the row.

        A row with hashes only, because its key is already cached, is filled in from the cache. A row with an error is not stored.
        """
        for path_column, hash_column in HASH_COLUMNS.items():
            if row[hash_column] is not None and row[path_column] in self._signatures:
                self.stored_hashes[row[path_column]] = self._signatures[row[path_column]], row[hash_column]
        if row["error"] is None:
            key = row_key(self.settings_hash, row)
            measured = {name: row[name] for name in _MEASURED} if row["height"] is not None else self.rows[key]
            self.stored_rows[key] = measured
            row |= measured
        return row


@contextlib.contextmanager
def open_cache(folder: Path | None, dataset: Dataset, limits: DataParams) -> Iterator[RowCache]:
    """Open the cache in a folder, and write it back at the end; after an interruption, together with its earlier content.

    Args:
        folder: the folder of the cache; None for an empty cache that is not written.
        dataset: the images of data/.
        limits: how files are read.
    """
    settings_hash = _settings_hash(dataset.classes, limits)
    hashes = {row["path"]: (row["signature"], row["sha256"]) for row in _read_table(folder, "files")}
    rows = {row.pop("row"): row for row in _read_table(folder, "rows")}
    cache = RowCache(dataset.root, settings_hash, hashes, rows)
    try:
        yield cache
    except BaseException:
        cache.stored_rows, cache.stored_hashes = rows | cache.stored_rows, hashes | cache.stored_hashes
        raise
    finally:
        files = [
            {"path": path, "signature": signature, "sha256": sha256}
            for path, (signature, sha256) in sorted(cache.stored_hashes.items())
        ]
        _write_table(folder, "files", files)
        _write_table(folder, "rows", [{"row": key} | row for key, row in sorted(cache.stored_rows.items())])


def describe_unless_cached(
    item: Item, root: Path, classes: ClassTable, limits: DataParams, settings_hash: str, cached_keys: Collection[str]
) -> Row:
    """Describe an item as `describe_item` does, unless the cache holds its row.

    Args:
        item: the image to describe.
        root: the folder data/.
        classes: the class table of the dataset.
        limits: how files are read.
        settings_hash: that of the cache.
        cached_keys: the keys (`row_key`) of the rows in the cache.

    Returns:
        The full row; or, if its key is one of `cached_keys`, a row with only the hashes of its files, for `RowCache.store`.
    """
    if cached_keys:
        row = describe_paths(item, root)
        with contextlib.suppress(OSError):  # describe_item reports what is wrong with the file
            for path_column, hash_column in HASH_COLUMNS.items():
                if row[path_column] is not None and (root / row[path_column]).stat().st_size <= max_bytes(limits):
                    row[hash_column] = sha256_file(root / row[path_column])
            if row_key(settings_hash, row) in cached_keys:
                return row
    return describe_item(item, root, classes, limits)


def row_key(settings_hash: str, row: Row) -> str:
    """Return the key of a row in the cache: a hash of everything that it depends on."""
    hashes = [row[column] or "" for column in HASH_COLUMNS.values()]
    return sha256_bytes("\0".join([settings_hash, *hashes]).encode())


def _settings_hash(classes: ClassTable, limits: DataParams) -> str:
    """Hash everything that rows depend on except their files: settings, decoders and source code."""
    return sha256_bytes("\n".join([classes.model_dump_json(), limits.model_dump_json(), _code_versions()]).encode())


@functools.cache
def _code_versions() -> str:
    import cv2

    root = Path(__file__).parents[1]
    files = sorted(path for pattern in _SOURCES for path in root.glob(pattern))
    hashes = [f"{path.relative_to(root).as_posix()} {sha256_file(path)}" for path in files]
    return " ".join([cv2.__version__, *(version(name) for name in _DECODERS), *hashes])


def _signature(path: Path) -> str | None:
    """Return a text that changes whenever the file's content changes, without reading it.

    None if the file changed so recently that its times prove nothing, or if there is no such file.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    if time.time() - max(status.st_mtime, status.st_ctime) < _RACY_S:
        return None
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def _schema(name: str) -> pa.Schema:
    import pyarrow as pa

    if name == "files":
        return pa.schema([(column, pa.string()) for column in ("path", "signature", "sha256")])
    return arrow_schema(_MEASURED).insert(0, pa.field("row", pa.string()))


def _read_table(folder: Path | None, name: str) -> list[Row]:
    import pyarrow.parquet as pq

    try:
        content = read_bytes(folder / name, _MAX_TABLE_BYTES) if folder else b""
    except DataError:
        return []
    digest, parquet = content[:_DIGEST_CHARACTERS], content[_DIGEST_CHARACTERS:]
    if sha256_bytes(parquet).encode() != digest:
        return []
    table = pq.read_table(io.BytesIO(parquet))
    return table.to_pylist() if table.schema.equals(_schema(name)) else []


def _write_table(folder: Path | None, name: str, rows: list[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if folder is None:
        return
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=_schema(name)), stream, compression="zstd")
    try:
        write_bytes(folder / name, sha256_bytes(stream.getvalue()).encode() + stream.getvalue())
    except OSError as error:
        say(f"ingest: the cache of image statistics cannot be written: {folder / name}: {error.strerror}")

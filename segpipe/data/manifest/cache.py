"""What earlier runs found out, so that unchanged files are neither hashed nor decoded again.

Two tables in a folder: hashes of files, by path, size, times and inode (as Git and DVC remember theirs), and rows, by a key made
of everything that a row depends on: the hashes of its files, the class table, the limits, the code that measures and the
versions of its decoders. Each table begins with a hash of itself: one that is torn, foreign or of another time counts for nothing.
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
from segpipe.data.manifest.columns import COLUMNS, HASH_COLUMNS, Row
from segpipe.data.manifest.describe import describe_item, describe_paths
from segpipe.data.images import max_bytes
from segpipe.data.manifest.table import arrow_schema
from segpipe.errors import DataError
from segpipe.files import read_bytes, sha256_bytes, sha256_file, write_bytes
from segpipe.progress import say
from segpipe.samples import ClassTable

if TYPE_CHECKING:
    import pyarrow as pa

_MEASURED = [name for name in COLUMNS if name not in (*HASH_COLUMNS, "key", "group", "split", "split_given", "fold", "error")]
_DECODERS = ("numpy", "pillow", "tifffile", "imagecodecs", "nibabel")
_SOURCES = ("manifest/describe.py", "manifest/regions.py", "images/*.py")
_MAX_BYTES = 1 << 32
_DIGEST = 64

_RACY_S = 2.0
"""A file that changed so shortly before it was read may change once more without its times showing it."""


class RowCache:
    """The rows and file hashes of earlier runs, and those that this run found worth keeping."""

    def __init__(self, root: Path, recipe: str, hashes: dict[str, tuple[str, str]], rows: dict[str, Row]) -> None:
        self.recipe, self.rows, self.hashes = recipe, rows, hashes
        self.kept_rows: dict[str, Row] = {}
        self.kept_hashes: dict[str, tuple[str, str]] = {}
        self._root, self._signatures = root, {}  # type: Path, dict[str, str]

    def recall(self, item: Item) -> Row | None:
        """The row of an item none of whose files changed since it was made; None for another. Opens no file."""
        row = describe_paths(item, self._root)
        unchanged = True
        for column, hashed in HASH_COLUMNS.items():
            if (path := row[column]) is None:
                continue
            if signature := _signature(self._root / path):
                self._signatures[path] = signature
            before, row[hashed] = self.hashes.get(path, ("", None))
            unchanged &= before == signature
        if not unchanged:
            return None
        return self.keep(row) if row_key(self.recipe, row) in self.rows else None

    def keep(self, row: Row) -> Row:
        """Remember a row and its files; one that has hashes alone, because its key is known, is filled in. Errors are not kept."""
        for column, hashed in HASH_COLUMNS.items():
            if row[hashed] is not None and row[column] in self._signatures:
                self.kept_hashes[row[column]] = self._signatures[row[column]], row[hashed]
        if row["error"] is None:
            key = row_key(self.recipe, row)
            measured = {name: row[name] for name in _MEASURED} if row["height"] is not None else self.rows[key]
            self.kept_rows[key] = measured
            row |= measured
        return row


@contextlib.contextmanager
def open_cache(folder: Path | None, dataset: Dataset, limits: DataParams) -> Iterator[RowCache]:
    """The cache that lies in a folder; written back at the end, and after an interruption with what was there before."""
    recipe = _recipe(dataset.classes, limits)
    hashes = {row["path"]: (row["signature"], row["sha256"]) for row in _read(folder, "files")}
    rows = {row.pop("row"): row for row in _read(folder, "rows")}
    cache = RowCache(dataset.root, recipe, hashes, rows)
    try:
        yield cache
    except BaseException:
        cache.kept_rows, cache.kept_hashes = rows | cache.kept_rows, hashes | cache.kept_hashes
        raise
    finally:
        files = [
            {"path": path, "signature": signature, "sha256": sha256}
            for path, (signature, sha256) in sorted(cache.kept_hashes.items())
        ]
        _write(folder, "files", files)
        _write(folder, "rows", [{"row": key} | row for key, row in sorted(cache.kept_rows.items())])


def describe_unless_cached(
    item: Item, root: Path, classes: ClassTable, limits: DataParams, recipe: str, known: Collection[str]
) -> Row:
    """`describe_item`; where the key of the row turns out to be `known`, a row with nothing but the hashes of its files."""
    if known:
        row = describe_paths(item, root)
        with contextlib.suppress(OSError):  # describe_item tells what is wrong with the file
            for column, hashed in HASH_COLUMNS.items():
                if row[column] is not None and (root / row[column]).stat().st_size <= max_bytes(limits):
                    row[hashed] = sha256_file(root / row[column])
            if row_key(recipe, row) in known:
                return row
    return describe_item(item, root, classes, limits)


def row_key(recipe: str, row: Row) -> str:
    """What a row depends on, as a hash."""
    return sha256_bytes("\0".join([recipe, *(row[hashed] or "" for hashed in HASH_COLUMNS.values())]).encode())


def _recipe(classes: ClassTable, limits: DataParams) -> str:
    """All but the files that rows depend on, as a hash: settings, decoders, and code."""
    return sha256_bytes("\n".join([classes.model_dump_json(), limits.model_dump_json(), _code()]).encode())


@functools.cache
def _code() -> str:
    import cv2

    room = Path(__file__).parents[1]
    files = sorted(path for pattern in _SOURCES for path in room.glob(pattern))
    hashes = [f"{path.relative_to(room).as_posix()} {sha256_file(path)}" for path in files]
    return " ".join([cv2.__version__, *(version(name) for name in _DECODERS), *hashes])


def _signature(path: Path) -> str | None:
    """What changes with a file's content, without reading it; None where that is no proof yet, or there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return None
    if time.time() - max(found.st_mtime, found.st_ctime) < _RACY_S:
        return None
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"


def _schema(name: str) -> pa.Schema:
    import pyarrow as pa

    if name == "files":
        return pa.schema([(column, pa.string()) for column in ("path", "signature", "sha256")])
    return arrow_schema(_MEASURED).insert(0, pa.field("row", pa.string()))


def _read(folder: Path | None, name: str) -> list[Row]:
    import pyarrow.parquet as pq

    try:
        content = read_bytes(folder / name, _MAX_BYTES) if folder else b""
    except DataError:
        return []
    digest, table = content[:_DIGEST], content[_DIGEST:]
    if sha256_bytes(table).encode() != digest:
        return []
    found = pq.read_table(io.BytesIO(table))
    return found.to_pylist() if found.schema.equals(_schema(name)) else []  # type: ignore[no-any-return]


def _write(folder: Path | None, name: str, rows: list[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if folder is None:
        return
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=_schema(name)), stream, compression="zstd")
    try:
        write_bytes(folder / name, sha256_bytes(stream.getvalue()).encode() + stream.getvalue())
    except OSError as error:
        say(f"ingest: what was read cannot be remembered for the next time: {folder / name}: {error.strerror}")

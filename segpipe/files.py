"""Reading and writing that cannot be torn: atomic writes, bounded reads, content hashes, names that are not paths."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segpipe.errors import DataError


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary path beside `target`, renamed onto it at the end: readers see the old file or the new one, never a half."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=target.suffix)
    os.close(handle)
    path = Path(name)
    try:
        yield path
        with path.open("rb+") as stream:
            os.fsync(stream.fileno())
        mask = os.umask(0)  # mkstemp makes files that only their owner can read
        os.umask(mask)
        path.chmod(0o666 & ~mask)
        path.replace(target)
    finally:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(target: Path, *, replace: bool = True) -> Iterator[Path]:
    """A new folder beside `target` that replaces it at the end: readers see the old folder or the new one, never a mixture.

    On an error nothing changes. What a killed process left behind is removed by the next call.

    Args:
        target: the folder to write.
        replace: whether it may be replaced if it holds files.

    Raises:
        DataError: `target` is not an empty folder, and `replace` is not set.
    """
    if not replace and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError("is not empty", where=target, fix="choose another folder, or let it be replaced (--replace)")
    target.parent.mkdir(parents=True, exist_ok=True)
    new, old = target.with_name(f".{target.name}.new"), target.with_name(f".{target.name}.old")
    if old.exists() and not target.exists():
        old.rename(target)  # a process was killed between the two renames below
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir()
    try:
        yield new
        if target.exists():
            target.rename(old)
        try:
            new.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
    finally:
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder so that `target` appears as a whole; what was there is replaced."""
    with atomic_folder(target) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)


def write_bytes(target: Path, content: bytes) -> None:
    """Write a file atomically, making its folder where needed."""
    with atomic_path(target) as path:
        path.write_bytes(content)


def write_text(target: Path, content: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_bytes(target, content.encode())


def write_json(target: Path, content: Any) -> None:
    """Write JSON atomically, in a form that diffs well. NaN is refused: it is no JSON."""
    write_text(target, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """The content of a file that comes from outside, refused before it is read where it is larger than `max_bytes`."""
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise DataError("file is too large", where=path, found=f"{size:,} bytes", expected=f"at most {max_bytes:,}")
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror or error}", where=path, fix="check the path and its permissions"
        ) from error


def read_json(path: Path, max_bytes: int = 1 << 28) -> Any:
    """A JSON file; a user's error, with the place, where it does not parse."""
    try:
        return json.loads(read_bytes(path, max_bytes))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"is not valid JSON: {error}", where=path, fix="restore the file or write it anew") from error


def sha256_bytes(content: bytes) -> str:
    """SHA-256 of some bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_tree(folder: Path) -> str:
    """SHA-256 over the names and contents of all files under a folder, in name order."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()


def safe_name(name: str) -> str:
    """A name from outside as a plain file name: letters, digits, '.', '_', '-'; never empty, never hidden, never a path."""
    cleaned = re.sub(r"[^\w.-]+", "_", name, flags=re.UNICODE).lstrip(".")
    return cleaned[:180] or "unnamed"

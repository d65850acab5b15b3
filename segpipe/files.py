"""Read and write files safely: atomic writes, bounded reads, content hashes, safe file names."""

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
    """Write a file atomically: readers see the old file or the new one, never a part of it.

    Args:
        target: the file to write; its folder is created if needed.

    Yields:
        A temporary path in the same folder to write to. It replaces `target` at the end, and is deleted on an error.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=target.suffix)
    os.close(handle)
    path = Path(name)
    try:
        yield path
        with path.open("rb+") as stream:
            os.fsync(stream.fileno())
        mask = os.umask(0)  # mkstemp creates files that only their owner can read
        os.umask(mask)
        path.chmod(0o666 & ~mask)
        path.replace(target)
    finally:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(
    target: Path, *, replace: bool = True, fix: str = "choose another folder, or let it be replaced (--replace)"
) -> Iterator[Path]:
    """Write a folder atomically: readers see the old folder or the new one, never a mixture.

    On an error nothing changes. Leftovers of a killed process are removed by the next call.

    Args:
        target: the folder to write; its parent is created if needed.
        replace: whether it may be replaced if it holds files.
        fix: what the error advises if it may not.

    Yields:
        A new, empty folder next to `target` to write to. It replaces `target` at the end.

    Raises:
        DataError: `target` is not an empty folder, and `replace` is false.
    """
    if not replace and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError("is not empty", where=target, fix=fix)
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
    """Copy a folder so that the copy appears as a whole.

    Args:
        source: the folder to copy.
        target: the copy; an existing folder is replaced.
    """
    with atomic_folder(target) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)


def write_bytes(target: Path, content: bytes) -> None:
    """Write a file atomically.

    Args:
        target: the file; its folder is created if needed.
        content: what it will hold.
    """
    with atomic_path(target) as path:
        path.write_bytes(content)


def write_text(target: Path, content: str) -> None:
    """Write a text file atomically.

    Args:
        target: the file; its folder is created if needed.
        content: its text, written as UTF-8.
    """
    write_bytes(target, content.encode())


def write_json(target: Path, content: Any) -> None:
    """Write a JSON file atomically, indented so that versions can be compared line by line.

    Args:
        target: the file; its folder is created if needed.
        content: what `json.dumps` accepts.

    Raises:
        ValueError: the content holds NaN or infinity, which are not JSON.
    """
    write_text(target, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def user_cache(name: str) -> Path:
    """Return a folder for what workspaces share and what may be deleted: `~/.cache/segpipe/NAME`, or below XDG_CACHE_HOME.

    Args:
        name: the name of the folder.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "segpipe" / name


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """Read an untrusted file, up to a size limit.

    Args:
        path: the file.
        max_bytes: the largest size in bytes that is accepted; checked before the file is read.

    Raises:
        DataError: the file is too large or cannot be read.
    """
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
    """Read a JSON file.

    Args:
        path: the file.
        max_bytes: the largest size in bytes that is accepted; checked before the file is read.

    Returns:
        The parsed content: a dict, a list or a scalar.

    Raises:
        DataError: the file is too large, cannot be read, or is not valid JSON (the message says where).
    """
    try:
        return json.loads(read_bytes(path, max_bytes))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"is not valid JSON: {error}", where=path, fix="restore the file or write it again") from error


def sha256_bytes(content: bytes) -> str:
    """Compute the SHA-256 of bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """Compute the SHA-256 of a file, as 64 hexadecimal digits, without loading it at once."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_tree(folder: Path) -> str:
    """Compute the SHA-256 over the names and contents of all files under a folder, in name order."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()


def safe_name(name: str) -> str:
    """Turn an untrusted name into a plain file name: letters, digits, '.', '_', '-'; never empty, hidden or a path."""
    cleaned = re.sub(r"[^\w.-]+", "_", name, flags=re.UNICODE).lstrip(".")
    return cleaned[:180] or "unnamed"

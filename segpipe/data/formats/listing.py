"""The listing of a source: its folders and files, each folder read from disk at most once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Literal

from segpipe.data.images import is_image_file
from segpipe.errors import DataError

EntryKind = Literal["folder", "file", "broken link", "other"]
"""The kind of a link is that of its target; "other" are pipes, sockets and devices."""


@dataclass(frozen=True)
class Entry:
    """A folder or a file as its parent folder lists it."""

    path: Path
    kind: EntryKind
    dir_entry: os.DirEntry[str]

    @property
    def is_hidden(self) -> bool:
        """True if the name begins with a dot."""
        return self.path.name.startswith(".")

    @property
    def size(self) -> int:
        """The size in bytes, read from disk once. Raises OSError for a broken link."""
        return self.dir_entry.stat().st_size


@dataclass(frozen=True)
class _Folder:
    """The content of a folder. `identity` is (device, inode), by which loops of links are noticed."""

    entries: dict[str, Entry]
    identity: tuple[int, int]

    @cached_property
    def files(self) -> list[Path]:
        """The regular files that are not hidden."""
        return [entry.path for entry in self.entries.values() if entry.kind == "file" and not entry.is_hidden]

    @cached_property
    def image_files(self) -> list[Path]:
        """Those of `files` that are named as images or volumes."""
        return [path for path in self.files if is_image_file(path)]


class FolderListing:
    """The folders and files below a root folder.

    A folder is read on first use, and its content is cached: a listing describes the source at one moment.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders: dict[Path, _Folder] = {}

    def entries(self, folder: Path) -> list[Entry]:
        """Return everything directly in a folder, hidden entries included, in name order.

        Raises:
            DataError: the folder cannot be read.
        """
        return list(self._read(folder).entries.values())

    def entry(self, path: Path) -> Entry | None:
        """Return the entry of a path below the root; None if there is no such path."""
        if not self.is_folder(path.parent):
            return None
        return self._read(path.parent).entries.get(path.name)

    def is_folder(self, path: Path) -> bool:
        """Return whether a path is a folder or a link to one."""
        if path == self.root:
            return True
        if not self._covers(path):
            return path.is_dir()
        entry = self.entry(path)
        return entry is not None and entry.kind == "folder"

    def is_file(self, path: Path) -> bool:
        """Return whether a path is a regular file or a link to one."""
        if not self._covers(path):
            return path.is_file()
        entry = self.entry(path)
        return entry is not None and entry.kind == "file"

    def size(self, path: Path) -> int:
        """Return the size of a file in bytes. Raises OSError if it does not exist."""
        entry = self.entry(path) if self._covers(path) else None
        return entry.size if entry else path.stat().st_size

    def folders(self, folder: Path) -> list[Path]:
        """Return the folders directly in a folder, without hidden ones, in name order."""
        return [entry.path for entry in self.entries(folder) if entry.kind == "folder" and not entry.is_hidden]

    def files(self, folder: Path) -> list[Path]:
        """Return the regular files directly in a folder, without hidden ones, in name order; none if there is no such folder.

        Raises:
            DataError: the folder cannot be read.
        """
        return list(self._read(folder).files) if self.is_folder(folder) else []

    def image_files(self, folder: Path) -> list[Path]:
        """Return those of `files` that are named as images or volumes."""
        return list(self._read(folder).image_files) if self.is_folder(folder) else []

    def matching(self, folder: Path, pattern: str) -> list[Path]:
        """Return those of `files` whose names match a shell pattern, case-sensitive; none if the folder cannot be read."""
        try:
            return [path for path in self.files(folder) if fnmatchcase(path.name, pattern)]
        except DataError:  # the reader of the layout reports the folder, if it needs it
            return []

    def files_below(self, folder: Path) -> Iterator[Path]:
        """Yield the files at any depth below a folder, in name order. Hidden ones are left out, links to folders are followed.

        Broken links are included, so that whoever opens them reports them.

        Raises:
            DataError: a link leads back to a folder above it, or a folder cannot be read.
        """
        return self._walk(folder, frozenset())

    def _walk(self, folder: Path, ancestors: frozenset[tuple[int, int]]) -> Iterator[Path]:
        content = self._read(folder)
        if content.identity in ancestors:
            raise DataError("a link leads back to a folder above it", where=folder, fix="remove the link")
        for entry in content.entries.values():
            if entry.is_hidden:
                continue
            if entry.kind == "folder":
                yield from self._walk(entry.path, ancestors | {content.identity})
            elif entry.kind in ("file", "broken link"):
                yield entry.path

    def _covers(self, path: Path) -> bool:
        """Return whether a path lies below the root by its name alone."""
        return ".." not in path.parts and path.is_relative_to(self.root)

    def _read(self, folder: Path) -> _Folder:
        if folder not in self._folders:
            try:
                status = folder.stat()
                with os.scandir(folder) as scan:
                    dir_entries = sorted(scan, key=lambda dir_entry: dir_entry.name)
            except OSError as error:
                raise DataError(
                    f"cannot be read: {error.strerror}", where=folder, fix="check the folder and its permissions"
                ) from error
            entries = {e.name: Entry(Path(e.path), _kind(e), e) for e in dir_entries}
            self._folders[folder] = _Folder(entries, (status.st_dev, status.st_ino))
        return self._folders[folder]


def _kind(entry: os.DirEntry[str]) -> EntryKind:
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
    except OSError:  # a link that leads to itself
        return "broken link"
    return "broken link" if entry.is_symlink() else "other"

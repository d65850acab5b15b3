"""The files of a source that an import does not use, counted by kind and reason."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from segpipe.data.formats.listing import FolderListing
from segpipe.data.formats.source import RawItem, ReadResult
from segpipe.data.images import data_file, is_image_file, suffix_of
from segpipe.errors import DataError

HIDDEN = "hidden"
NOT_READ = "a kind of file that is not read"
OTHER_FOLDER = "in a folder that is not part of the dataset"
NO_PARTNER = "no partner"
LEFT_OUT = "left out"
BROKEN_LINK = "a link that leads nowhere"
UNREADABLE_FOLDER = "a folder that cannot be read"


class UnusedFiles(BaseModel):
    """Files of one kind that are not used for the same reason."""

    model_config = ConfigDict(frozen=True)
    kind: str
    """The ending of their names, such as ".npy"; "" for names without one."""
    reason: str
    files: int
    example: str
    """The first of them, relative to the source."""

    def line(self) -> str:
        """Return the group as a line of text."""
        kind = f"{self.kind} " if self.kind else ""
        return f"not used: {self.files:,} {kind}file{'s' if self.files > 1 else ''} ({self.reason}), for example {self.example}"


def count_unused(
    listing: FolderListing, source: Path, items: Iterable[RawItem], result: ReadResult, imported: Iterable[RawItem]
) -> list[UnusedFiles]:
    """Count the files below a source that an import has not used.

    Args:
        listing: the listing of the source.
        source: the source.
        items: all items that were read.
        result: names further files that were used, such as annotations.
        imported: the items that were imported.

    Returns:
        One entry for each kind of file and reason, the largest first.
    """
    used = {os.path.realpath(path) for path in result.used_files}
    for item in imported:
        used.update(os.path.realpath(path) for path in _paths_of(item))
    used.update(os.path.realpath(data) for path in list(used) if (data := data_file(Path(path))))
    refused = {os.path.realpath(path) for item in items for path in _paths_of(item)} - used
    folders = {path.rpartition(os.sep)[0] for path in used | refused}
    groups: dict[tuple[str, str], list[str]] = {}
    for path, known_reason in _all_files(listing, source, used):
        real = os.path.realpath(path)
        if real in used:
            continue
        if known_reason:
            reason = known_reason
        elif real in refused:
            reason = LEFT_OUT
        elif not is_image_file(path):
            reason = NOT_READ
        else:
            reason = NO_PARTNER if real.rpartition(os.sep)[0] in folders else OTHER_FOLDER
        groups.setdefault((suffix_of(path), reason), []).append(path.relative_to(source).as_posix())
    unused = [
        UnusedFiles(kind=kind, reason=reason, files=len(names), example=min(names))
        for (kind, reason), names in groups.items()
    ]
    return sorted(unused, key=lambda group: (-group.files, group.kind, group.reason))


def _paths_of(value: Any) -> Iterator[Path]:
    """Yield the paths in an item, also those in the objects that draw its labels."""
    if isinstance(value, Path):
        yield value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _paths_of(getattr(value, field.name))
    elif isinstance(value, tuple):
        for part in value:
            yield from _paths_of(part)


def _all_files(listing: FolderListing, source: Path, used: set[str]) -> Iterator[tuple[Path, str]]:
    """Yield every file below a source, with the reason why it is not used if its place or kind is one, else "".

    Folders that are used as a whole (OME-Zarr) are left out. Links to folders are followed once.
    A folder that cannot be read is yielded in place of its files.
    """
    visited: set[str] = set()
    pending = [(source, False)]
    while pending:
        folder, in_hidden = pending.pop()
        real = os.path.realpath(folder)
        if real in visited or real in used:
            continue
        visited.add(real)
        try:
            entries = listing.entries(folder)
        except DataError:
            yield folder, UNREADABLE_FOLDER
            continue
        for entry in entries:
            is_hidden = in_hidden or entry.is_hidden
            if entry.kind == "folder":
                pending.append((entry.path, is_hidden))
            else:
                broken = BROKEN_LINK if entry.kind == "broken link" else ""
                yield entry.path, HIDDEN if is_hidden else broken

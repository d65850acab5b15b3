"""Class names that a source writes beside its masks of class values, in files or in the name of a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from segpipe.data.formats.listing import FolderListing
from segpipe.data.formats.masks.name_words import words_of
from segpipe.data.formats.masks.palettes import IGNORED_NAMES
from segpipe.data.formats.source import ReadResult
from segpipe.errors import DataError
from segpipe.files import read_bytes
from segpipe.samples import MAX_CLASSES, ClassSpec, ClassTable, default_color

_MAX_BYTES = 1 << 22
_MAX_DEPTH = 3
_TRIMAP = {1: "foreground", 2: "background", 3: None}
"""The values of the trimaps of Oxford-IIIT Pet: foreground, background, and a border that is ignored."""


def find_class_list(
    listing: FolderListing,
    source: Path,
    folders: Iterable[str],
    sample_values: Callable[[], set[int]],
    result: ReadResult,
) -> None:
    """Give a result the classes of a list in its source, if there is one that is known and that has all values of a sample.

    Known are `objectInfo150.txt` of ADE20K, `config.json` of Mapillary Vistas, and folders of trimaps with the values 1, 2 and 3.

    Args:
        listing: the listing of the source.
        source: the source.
        folders: the names of the folders of masks.
        sample_values: returns the values that a sample of the masks holds.
        result: gets the classes and the file.
    """
    for path in files_at_depth(listing, source, _MAX_DEPTH):
        parse = _PARSERS.get(path.name.lower())
        names = parse(path) if parse else None
        if names and sample_values() and sample_values() <= names.keys():
            result.classes, result.classes_from = _table(names), path.name
            result.used_files.add(path)
            return
    if any({"trimap", "trimaps"} & {*words_of(folder)} for folder in folders):
        values = sample_values()
        if {1, 2} <= values <= {*_TRIMAP}:
            result.classes = _table(_TRIMAP)
            result.classes_from = "trimaps: 1 is the foreground, 2 the background, and 3 the border, which is ignored"


def files_at_depth(listing: FolderListing, folder: Path, depth: int) -> list[Path]:
    """Return the files in a folder and in its folders down to a depth; those of folders that cannot be read are left out."""
    try:
        files, folders = listing.files(folder), listing.folders(folder) if depth else []
    except DataError:
        return []
    return files + [path for child in folders for path in files_at_depth(listing, child, depth - 1)]


def _table(names: dict[int, str | None]) -> ClassTable:
    """Return the class table of names by value; None and names such as `void` mark ignored values."""
    classes = {value: name for value, name in names.items() if name and name.lower() not in IGNORED_NAMES}
    order = sorted(classes, key=lambda value: classes[value] != "background")
    return ClassTable(
        classes=tuple(
            ClassSpec(name=str(classes[value]), value=value, color=default_color(rank))
            for rank, value in enumerate(order)
        ),
        ignore=tuple(value for value in names if value not in classes),
    )


def _ade_names(path: Path) -> dict[int, str | None] | None:
    """Return {value: name} of the lines `Idx Ratio Train Val Stuff Name`; 0 is everything else, which is ignored."""
    names: dict[int, str | None] = {0: None}
    for line in _text(path).splitlines()[1:]:
        fields = line.split("\t")
        if len(fields) < 3 or not fields[0].strip().isdigit():
            continue
        names[int(fields[0])] = fields[-1].split(",")[0].strip()
    return names if _is_usable(names) else None


def _mapillary_names(path: Path) -> dict[int, str | None] | None:
    """Return {value: name} of the list `labels`, whose order is that of the values."""
    try:
        document: Any = json.loads(_text(path))
    except (ValueError, RecursionError):
        return None
    labels = document.get("labels") if isinstance(document, dict) else None
    if not isinstance(labels, list) or not all(isinstance(label, dict) and "name" in label for label in labels):
        return None
    names: dict[int, str | None] = {
        value: str(label.get("readable") or label["name"]) for value, label in enumerate(labels)
    }
    return names if _is_usable(names) else None


def _is_usable(names: dict[int, str | None]) -> bool:
    classes = [name for name in names.values() if name and name.lower() not in IGNORED_NAMES]
    return (
        2 <= len(classes) <= MAX_CLASSES
        and len({*classes}) == len(classes)
        and all(0 <= value < 65536 for value in names)
    )


def _text(path: Path) -> str:
    try:
        return read_bytes(path, _MAX_BYTES).decode("utf-8-sig", "replace")
    except (DataError, OSError):
        return ""


_PARSERS: dict[str, Callable[[Path], dict[int, str | None] | None]] = {
    "objectinfo150.txt": _ade_names,
    "config.json": _mapillary_names,
}

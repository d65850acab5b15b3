"""One module a layout; each reads where things lie in a source folder, and the importer writes them in the canonical layout.

To add a layout: a module with a reader, and a line in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from segpipe.data.formats.folder import read_folder
from segpipe.data.formats.paired_list import read_paired_list
from segpipe.data.formats.source import ReadOptions, Source
from segpipe.errors import ConfigError


@dataclass(frozen=True)
class Format:
    """A layout that can be imported: its name, one line about it, and its reader."""

    name: str
    summary: str
    read: Callable[[Path, ReadOptions], Source]


FORMATS = {
    format.name: format
    for format in (
        Format("folder", "images/ and masks/ with equal file names; also under train/, val/, test/", read_folder),
        Format("paired-list", "train.txt, val.txt, test.txt with a line `image label` for each pair", read_paired_list),
    )
}


def find_format(name: str) -> Format:
    """The layout of this name; ConfigError lists those there are."""
    if name not in FORMATS:
        raise ConfigError("no such format", found=name, expected=" or ".join(FORMATS))
    return FORMATS[name]

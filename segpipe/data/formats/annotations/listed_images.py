"""Where the images lie that an annotation file lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segpipe.data.formats.source import resolve_inside
from segpipe.errors import DataError


def find_listed(source: Path, folders: Sequence[Path], name: str, where: Path | str) -> Path:
    """The file `name`, resolved, in the first of the folders that has it; `where` is the annotation file, for errors.

    Raises DataError for a name that leads out of the source, or to no file.
    """
    for folder in folders:
        try:
            there = (folder / name).is_file()
        except (OSError, ValueError):  # too long, a NUL, a loop of links
            there = False
        if there:
            return resolve_inside(source, str(folder / name), str(where))
    resolve_inside(source, name, str(where))
    raise DataError(
        "is in the annotations, but there is no such file", where=where, found=name,
        expected="a file in " + " or ".join(sorted({_shown(folder, source) for folder in folders}))[:80],
        fix="bring the image, or name the folder of images (--images)",
    )


def _shown(folder: Path, source: Path) -> str:
    return folder.relative_to(source).as_posix() if folder.is_relative_to(source) else folder.as_posix()

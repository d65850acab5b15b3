"""The image files that an annotation file or a list names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segpipe.data.formats.source import resolve_inside
from segpipe.errors import DataError


def find_listed(source: Path, folders: Sequence[Path], name: str, where: Path | str) -> Path:
    """Return the file that a list names, resolved.

    Args:
        source: the folder that the file must not leave.
        folders: where to look for it; the first folder that has it counts.
        name: the name in the list.
        where: the list, for errors.

    Raises:
        DataError: the name leads out of the source, or there is no such file.
    """
    for folder in folders:
        try:
            exists = (folder / name).is_file()
        except (OSError, ValueError):  # a name too long, a NUL, a loop of links
            exists = False
        if exists:
            return resolve_inside(source, str(folder / name), str(where))
    resolve_inside(source, name, str(where))
    raise DataError(
        "names a missing image",
        where=where,
        found=name,
        expected="a file in " + " or ".join(sorted({_relative(folder, source) for folder in folders}))[:80],
        fix="add the image, or name the folder of images (--images)",
    )


def _relative(folder: Path, source: Path) -> str:
    return folder.relative_to(source).as_posix() if folder.is_relative_to(source) else folder.as_posix()

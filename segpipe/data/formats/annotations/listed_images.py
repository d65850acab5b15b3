"""The image files that an annotation file or a list names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

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
    for candidate in _possible_names(name):
        for folder in folders:
            try:
                exists = (folder / candidate).is_file()
            except (OSError, ValueError):  # a name too long, a NUL, a loop of links
                exists = False
            if exists:
                return resolve_inside(source, str(folder / candidate), str(where))
    resolve_inside(source, name, str(where))
    raise DataError(
        "names a missing image",
        where=where,
        found=name,
        expected="a file in " + " or ".join(sorted({_relative(folder, source) for folder in folders}))[:80],
        fix="add the image, or name the folder of images (--images)",
    )


def _possible_names(name: str) -> list[str]:
    """Return the names that a list may mean: the name itself and, for a path of Windows or a URL, its endings, the longest first."""
    if "\\" not in name and "://" not in name:
        return [name]
    path = unquote(urlsplit(name).path) if "://" in name else name.replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    return [name, *("/".join(parts[start:]) for start in range(len(parts)))]


def _relative(folder: Path, source: Path) -> str:
    return folder.relative_to(source).as_posix() if folder.is_relative_to(source) else folder.as_posix()

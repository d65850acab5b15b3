"""The image files that an annotation file or a list names, also by paths of another machine, URLs and names with a prefix."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import resolve_inside
from segpipe.data.images import is_image_file, stem_of
from segpipe.data.images.file_names import LINK_FIX, saved_link
from segpipe.errors import DataError
from segpipe.files import read_bytes

UPLOAD_PREFIX = re.compile(r"[0-9a-f]{8}-(?=.)")
"""What Label Studio puts before the name of an uploaded file."""
_MAX_NAME_LENGTH = 4096


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
    for candidate in _listed_names(name):
        for folder in folders:
            try:
                exists = (folder / candidate).is_file()
            except (OSError, ValueError):  # a name too long, a NUL, a loop of links
                exists = False
            if exists:
                _check_links(source, folder / candidate, where)
                return resolve_inside(source, str(folder / candidate), str(where))
    resolve_inside(source, name, str(where))
    for folder in folders:
        _check_saved_link(folder)
    raise DataError(
        "names a missing image",
        where=where,
        found=name,
        expected="a file in " + " or ".join(sorted({_relative(folder, source) for folder in folders}))[:80],
        fix="add the image, or name the folder of images (--images)",
    )


def _check_links(source: Path, path: Path, where: Path | str) -> None:
    """Raise DataError if a file lies below the source by its name, but a folder on the way to it is a link that leads out of it."""
    if ".." in path.parts or not path.is_relative_to(source):
        return
    for folder in reversed(path.relative_to(source).parents[:-1]):
        target = (source / folder).resolve()
        if not target.is_relative_to(source.resolve()):
            raise DataError(
                "the images lie behind a link that leads out of the source",
                where=where,
                found=f"{folder.as_posix()}/ leads to {target}",
                expected=f"files below {source}",
                fix=f"name the folder of images (--images {target}), or copy it into the source",
            )


def _check_saved_link(folder: Path) -> None:
    """Raise DataError if a folder of images is a link that was saved as a text file."""
    try:
        link = saved_link(read_bytes(folder, _MAX_NAME_LENGTH)) if folder.is_file() else None
    except DataError:
        return
    if link:
        raise DataError("is a link that was saved as a text file", where=folder, found=link, fix=LINK_FIX)


def possible_names(name: str) -> list[str]:
    """Return the relative paths that a name in an annotation file may mean, the longest ones first.

    They are the endings of the path of a name (also with backslashes), of a URL (`https://host/images/a.png?token=x`) or of the query
    `?d=` of Label Studio's local files, decoded where it is URL-encoded; at last, the file name without the prefix of an upload.
    """
    paths = [name.replace("\\", "/")]
    try:
        url = urlsplit(paths[0])
        paths = [*parse_qs(url.query).get("d", []), *paths]
    except ValueError:  # not a valid URL
        url = urlsplit("")
    if (url.scheme and url.netloc) or url.query:
        paths.append(url.path)
    paths += [unquote(path) for path in paths if "%" in path]
    endings: dict[str, None] = {}
    for path in paths:
        parts = [part for part in path.split("/") if part not in ("", ".", "..")]
        endings |= dict.fromkeys("/".join(parts[start:]) for start in range(len(parts)))
    names = sorted(endings, key=lambda ending: -ending.count("/"))
    base_names = [ending for ending in names if "/" not in ending]
    return names + [UPLOAD_PREFIX.sub("", base, count=1) for base in base_names if UPLOAD_PREFIX.match(base)]


def _listed_names(name: str) -> list[str]:
    """Return the names that a list may mean: the name itself, and other readings of it if it is no plain relative path."""
    is_plain = not any(mark in name for mark in ("\\", "://", "?", "%", "../")) and not name.startswith("/")
    base = name.rpartition("/")[2]
    if is_plain and not UPLOAD_PREFIX.match(base):
        return [name]
    if is_plain:
        return [name, name.removesuffix(base) + UPLOAD_PREFIX.sub("", base, count=1)]
    return [name, *possible_names(name)]


class ImageIndex:
    """The image files below a source, found by the end of their paths. The files are listed on first use.

    Args:
        probe: the source.
    """

    def __init__(self, probe: SourceProbe) -> None:
        self._probe = probe
        self._by_name: dict[str, list[Path]] | None = None
        self._by_stem: dict[str, list[Path]] = {}

    @property
    def source(self) -> Path:
        """The source, resolved."""
        return self._probe.source.resolve()

    def find(self, name: str, min_parts: int = 1) -> Path | None:
        """Return the image file that a name means, resolved; the longest common ending of both paths decides.

        Args:
            name: a path of this or of another machine, or a URL; see `possible_names`.
            min_parts: how many parts of the path must agree: 1 for the file name alone, 2 for its folder, too.

        Returns:
            The file; None if there is none in the source.

        Raises:
            DataError: several files fit equally well.
        """
        if not name or "\0" in name or len(name) > _MAX_NAME_LENGTH:
            return None
        for candidate in possible_names(name):
            if candidate.count("/") + 1 < min_parts:
                continue
            files = self._files(candidate.rpartition("/")[2])
            if image := self._only([path for path in files if self._ends_with(path, candidate)], candidate):
                return image
        return None

    def find_stem(self, stem: str) -> Path | None:
        """Return the only image file with this name without its ending; None if there is none. Raises DataError for several."""
        self._files("")
        return self._only(self._by_stem.get(stem, []), stem)

    def _files(self, name: str) -> list[Path]:
        if self._by_name is None:
            self._by_name = {}
            for path in self._probe.listing.files_below(self._probe.source):
                if is_image_file(path):
                    self._by_name.setdefault(path.name.lower(), []).append(path)
                    self._by_stem.setdefault(stem_of(path), []).append(path)
        return self._by_name.get(name.lower(), [])

    def _ends_with(self, path: Path, ending: str) -> bool:
        return f"/{path.relative_to(self._probe.source).as_posix()}".lower().endswith(f"/{ending}".lower())

    def _only(self, paths: list[Path], name: str) -> Path | None:
        """Return the only one of these files that lies in the source, resolved."""
        source = self.source
        exact = [path for path in paths if path.name == name.rpartition("/")[2]]
        images = {path.resolve() for path in exact or paths}
        inside = sorted(image for image in images if image.is_file() and image.is_relative_to(source))
        if len(inside) > 1:
            raise DataError(
                "several images could be meant",
                found=" and ".join(_relative(image, source) for image in inside[:3]),
                expected=f"one file {name}",
                fix="give the images different names, or import their folders one by one",
            )
        return inside[0] if inside else None


def _relative(folder: Path, source: Path) -> str:
    return folder.relative_to(source).as_posix() if folder.is_relative_to(source) else folder.as_posix()

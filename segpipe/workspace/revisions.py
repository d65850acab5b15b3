"""What Git and DVC hold of a commit: read a file, or fetch a folder, without checking anything out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from segpipe.errors import MissingError


@dataclass(frozen=True)
class Revision:
    """A commit, or the workspace as it is now (then `commit` is None).

    read: the content of a file by its path in the workspace; None where the revision has none, or where neither DVC's cache nor
    its remote holds it. fetch: copies the files right in a folder whose names match a pattern to a new folder; False where there
    are none.
    """

    name: str
    commit: str | None
    read: Callable[[str], bytes | None]
    fetch: Callable[[str, str, Path], bool]


def open_workspace(root: Path) -> Revision:
    """The workspace as it is now."""

    def fetch(folder: str, pattern: str, target: Path) -> bool:
        found = [path for path in sorted((root / folder).glob(pattern)) if path.is_file()]
        for path in found:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / path.name)
        return bool(found)

    return Revision(".", None, lambda path: _content(root / path), fetch)


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def open_revision(root: Path, name: str) -> Revision:
    """A revision of Git (commit, tag, branch) or a DVC experiment by its name. MissingError where there is none of this name."""
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexDirError

    try:
        files = DVCFileSystem(str(root), rev=name)
        commit = str(files.repo.get_rev())
    except DvcException as error:
        raise MissingError(
            "is no revision of this workspace",
            where=name,
            found=" ".join(str(error).split())[:200],
            expected="a version (v0.1.0), a commit, branch or tag of Git, an experiment of DVC, or . for the workspace",
            fix="segpipe models, git log, or dvc exp show lists them",
        ) from error

    absent = (OSError, DvcException, DataIndexDirError)
    """Not in the commit, or in no cache: the caller says what that means."""

    def read(path: str) -> bytes | None:
        try:
            return bytes(files.read_bytes(f"/{path}"))
        except absent:
            return None

    def fetch(folder: str, pattern: str, target: Path) -> bool:
        try:
            listed = sorted(str(path) for path in files.ls(f"/{folder}", detail=False))
            found = [path for path in listed if fnmatch(PurePosixPath(path).name, pattern)]
            for path in found:
                target.mkdir(parents=True, exist_ok=True)
                files.get_file(path, str(target / PurePosixPath(path).name))
        except absent:
            shutil.rmtree(target, ignore_errors=True)
            return False
        return bool(found)

    return Revision(name, commit, read, fetch)

"""Read files and folders of any Git revision, from Git and the DVC cache, without checking it out."""

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

    read(path): returns the content of a file by its path in the workspace; None if the revision has no such file, or if it is neither in
    the DVC cache nor in its remote.

    fetch(folder, pattern, target): copies the files directly in a folder whose names match a pattern to a new folder; returns False if
    there are none.
    """

    name: str
    commit: str | None
    read: Callable[[str], bytes | None]
    fetch: Callable[[str, str, Path], bool]


def open_workspace(root: Path) -> Revision:
    """Return the workspace as it is now."""

    def fetch(folder: str, pattern: str, target: Path) -> bool:
        files = [path for path in sorted((root / folder).glob(pattern)) if path.is_file()]
        for path in files:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / path.name)
        return bool(files)

    return Revision(".", None, lambda path: _content(root / path), fetch)


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def open_revision(root: Path, name: str) -> Revision:
    """Return a Git revision or a DVC experiment.

    Args:
        root: the workspace.
        name: a commit, tag or branch of Git, or the name of a DVC experiment.

    Raises:
        MissingError: there is no revision of this name.
    """
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexDirError

    try:
        filesystem = DVCFileSystem(str(root), rev=name)
        commit = str(filesystem.repo.get_rev())
    except DvcException as error:
        raise MissingError(
            "not a revision of this workspace",
            where=name,
            found=" ".join(str(error).split())[:200],
            expected="a version (v0.1.0), a Git commit, branch or tag, a DVC experiment, or . for the workspace",
            fix="list them with segpipe models, git log or dvc exp show",
        ) from error

    # raised for a file that is not in the commit, or in no cache; the caller decides what that means
    not_available = (OSError, DvcException, DataIndexDirError)

    def read(path: str) -> bytes | None:
        try:
            return bytes(filesystem.read_bytes(f"/{path}"))
        except not_available:
            return None

    def fetch(folder: str, pattern: str, target: Path) -> bool:
        try:
            paths = sorted(str(path) for path in filesystem.ls(f"/{folder}", detail=False))
            matching = [path for path in paths if fnmatch(PurePosixPath(path).name, pattern)]
            for path in matching:
                target.mkdir(parents=True, exist_ok=True)
                filesystem.get_file(path, str(target / PurePosixPath(path).name))
        except not_available:
            shutil.rmtree(target, ignore_errors=True)
            return False
        return bool(matching)

    return Revision(name, commit, read, fetch)

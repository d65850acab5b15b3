"""Finding the workspace that a folder belongs to."""

from __future__ import annotations

from pathlib import Path

from segpipe.config import PARAMS_FILE
from segpipe.errors import ConfigError
from segpipe.workspace.pipeline import PIPELINE_FILE


def is_workspace(folder: Path) -> bool:
    """Whether a folder holds what every workspace holds."""
    return (folder / PIPELINE_FILE).is_file() and (folder / PARAMS_FILE).is_file()


def find_root(start: Path) -> Path:
    """The workspace that a folder lies in: the nearest one upwards."""
    for folder in (start.resolve(), *start.resolve().parents):
        if is_workspace(folder):
            return folder
    raise ConfigError(
        "no workspace here, nor above",
        where=start.resolve(),
        expected=f"a folder with {PIPELINE_FILE} and {PARAMS_FILE}",
        fix="go to one, or name it with -C DIR, or make one: segpipe init DIR --data IMAGES",
    )


def check_repository(root: Path) -> None:
    """A workspace is the top of its own Git repository: its tags and commits are its releases."""
    if not (root / ".git").exists():
        raise ConfigError(
            "the workspace is not the top of a Git repository", where=root, fix=f"git -C {root} init, then commit"
        )

"""Find the workspace that a folder belongs to."""

from __future__ import annotations

from pathlib import Path

from segpipe.config import PARAMS_FILE
from segpipe.errors import ConfigError
from segpipe.workspace.pipeline import PIPELINE_FILE


def is_workspace(folder: Path) -> bool:
    """Return whether a folder is a workspace: it has dvc.yaml and params.yaml."""
    return (folder / PIPELINE_FILE).is_file() and (folder / PARAMS_FILE).is_file()


def find_root(start: Path) -> Path:
    """Return the workspace that a folder is in: the folder itself, or the nearest one above it.

    Args:
        start: the folder to begin with.

    Raises:
        ConfigError: there is no workspace.
    """
    for folder in (start.resolve(), *start.resolve().parents):
        if is_workspace(folder):
            return folder
    raise ConfigError(
        "no workspace here or in a folder above",
        where=start.resolve(),
        expected=f"a folder with {PIPELINE_FILE} and {PARAMS_FILE}",
        fix="go to a workspace, or name one with -C DIR, or make one: segpipe init DIR --data IMAGES",
    )


def check_repository(root: Path) -> None:
    """Check that a workspace is the top folder of a Git repository, because its tags and commits are its releases.

    Raises:
        ConfigError: it is not.
    """
    if not (root / ".git").exists():
        raise ConfigError(
            "the workspace is not the top of a Git repository", where=root, fix=f"git -C {root} init, then commit"
        )

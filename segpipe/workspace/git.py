"""Git for workspaces and releases: run a command, find the user's identity, commit some paths and nothing else."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from segpipe.errors import MissingError, SegpipeError

FALLBACK_IDENTITY = {"user.name": "segpipe", "user.email": "segpipe@localhost"}


def git(root: Path, *arguments: str, options: Sequence[str] = ()) -> str:
    """Run `git ARGUMENTS`.

    Args:
        root: the folder to run it in.
        arguments: a subcommand and its arguments, such as "rev-parse", "HEAD".
        options: options of `git` itself, which go before the subcommand.

    Returns:
        Its standard output, stripped.

    Raises:
        MissingError: Git is not installed.
        SegpipeError: the command failed; the message has Git's output.
    """
    command = ["git", "-C", str(root), *options, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    except FileNotFoundError as error:
        raise MissingError("Git is not installed", fix="install Git 2.28 or later") from error
    if done.returncode:
        message = " ".join((done.stderr or done.stdout).split())[-400:]
        raise SegpipeError(f"git {arguments[0]} failed: {message}", where=root)
    return done.stdout.strip()


def is_repository(root: Path) -> bool:
    """Return whether a folder is in a Git repository that has at least one commit."""
    try:
        git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    except MissingError:
        raise
    except SegpipeError:
        return False
    return True


def head(root: Path) -> str:
    """Return the commit that is checked out, as 40 hexadecimal digits."""
    return git(root, "rev-parse", "HEAD")


def identity(root: Path) -> dict[str, str]:
    """Return `user.name` and `user.email`: the user's if Git knows them, otherwise segpipe's."""
    values = {}
    for key, fallback in FALLBACK_IDENTITY.items():
        try:
            values[key] = git(root, "config", key) or fallback
        except SegpipeError:
            values[key] = fallback
    return values


def signature(root: Path) -> list[str]:
    """Return the `git` options that set author and committer, so that a commit works even if Git knows no user."""
    return [flag for key, value in identity(root).items() for flag in ("-c", f"{key}={value}")]


def commit_staged(root: Path, message: str) -> bool:
    """Commit what is staged. Returns False if nothing is staged."""
    if not git(root, "diff", "--cached", "--name-only"):
        return False
    git(root, "commit", "--quiet", "--message", message, options=signature(root))
    return True


def commit_paths(root: Path, pathspecs: Sequence[str], message: str, allow_empty: bool = False) -> str:
    """Commit what changed under some pathspecs: new files too, ignored ones not.

    What the user has staged elsewhere stays staged and is not part of the commit.

    Args:
        root: the top folder of the repository.
        pathspecs: files or folders, relative to `root`.
        message: the commit message.
        allow_empty: whether to commit if nothing changed.

    Returns:
        The commit that is HEAD afterwards, as 40 hexadecimal digits.
    """
    literal = ["--literal-pathspecs"]
    listed = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *pathspecs)
    files = [name for name in listed.split("\0") if name]
    if files:
        git(root, "add", "--all", "--", *files, options=literal)
    changed = bool(files) and git(root, "diff", "--cached", "--name-only", "HEAD", "--", *files, options=literal) != ""
    if changed or allow_empty:
        target = ["--", *files] if changed else ["--allow-empty"]
        git(root, "commit", "--quiet", "--only", "--message", message, *target, options=literal + signature(root))
    return head(root)

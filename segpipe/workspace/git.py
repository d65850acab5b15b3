"""Git, as far as workspaces and releases need it: run a command, know who commits, commit some paths and nothing else."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from segpipe.errors import MissingError, SegpipeError

FALLBACK = {"user.name": "segpipe", "user.email": "segpipe@localhost"}


def git(root: Path, *arguments: str, options: Sequence[str] = ()) -> str:
    """The output of `git ARGUMENTS` in a folder, stripped; what Git says, as a user's error, where it fails."""
    command = ["git", "-C", str(root), *options, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    except FileNotFoundError as error:
        raise MissingError("git is not installed here", fix="install git") from error
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-400:]
        raise SegpipeError(f"git {arguments[0]} failed: {said}", where=root)
    return done.stdout.strip()


def is_repository(root: Path) -> bool:
    """Whether a folder lies in a Git repository that has a commit."""
    try:
        git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    except MissingError:
        raise
    except SegpipeError:
        return False
    return True


def head(root: Path) -> str:
    """The commit that is checked out, 40 hexadecimal digits."""
    return git(root, "rev-parse", "HEAD")


def identity(root: Path) -> dict[str, str]:
    """`user.name` and `user.email`: the user's where Git knows them, segpipe's where it does not."""
    found = {}
    for key, fallback in FALLBACK.items():
        try:
            found[key] = git(root, "config", key) or fallback
        except SegpipeError:
            found[key] = fallback
    return found


def signature(root: Path) -> list[str]:
    """Options of `git` with which a commit is signed, also where Git knows no user."""
    return [flag for key, value in identity(root).items() for flag in ("-c", f"{key}={value}")]


def commit_staged(root: Path, message: str) -> bool:
    """Commit what is staged; False when nothing is."""
    if not git(root, "diff", "--cached", "--name-only"):
        return False
    git(root, "commit", "--quiet", "--message", message, options=signature(root))
    return True


def commit_paths(root: Path, pathspecs: Sequence[str], message: str, allow_empty: bool = False) -> str:
    """Commit what changed under some pathspecs (new files too, ignored ones not), and return the commit that is HEAD then.

    What the user has staged elsewhere stays staged and is not part of the commit. Where nothing changed there is no commit,
    unless `allow_empty`.
    """
    literal = ["--literal-pathspecs"]
    listed = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *pathspecs)
    files = [name for name in listed.split("\0") if name]
    if files:
        git(root, "add", "--all", "--", *files, options=literal)
    changed = bool(files) and git(root, "diff", "--cached", "--name-only", "HEAD", "--", *files, options=literal) != ""
    if changed or allow_empty:
        what = ["--", *files] if changed else ["--allow-empty"]
        git(root, "commit", "--quiet", "--only", "--message", message, *what, options=literal + signature(root))
    return head(root)

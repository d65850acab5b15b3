"""Lock a workspace, so that only one run at a time changes it."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from segpipe.errors import BusyError
from segpipe.files import write_json
from segpipe.workspace.paths import Paths


@contextlib.contextmanager
def lock(root: Path) -> Iterator[None]:
    """Hold the lock of a workspace. The lock of a process that died counts as free.

    Args:
        root: the workspace.

    Raises:
        BusyError: another run holds the lock; the message names its process.
    """
    from filelock import FileLock, Timeout

    state = Paths(root).state
    state.mkdir(exist_ok=True)
    holder = state / "holder.json"
    held = FileLock(state / "lock", timeout=0)
    try:
        held.acquire()
    except Timeout as error:
        raise BusyError(
            "another run uses the workspace", where=root, found=_holder(holder), fix="wait for it, or end that process"
        ) from error
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        write_json(holder, {"pid": os.getpid(), "command": " ".join(sys.argv), "since": since})
        yield
    finally:
        holder.unlink(missing_ok=True)
        held.release()


def _holder(path: Path) -> str:
    """Describe the process that holds the lock. The file is written a moment after the lock is taken, so it may be missing."""
    try:
        content = json.loads(path.read_text())
        return f"process {content['pid']} since {content['since']}: {content['command']}"
    except (OSError, ValueError, KeyError):
        return "a process that started just now"

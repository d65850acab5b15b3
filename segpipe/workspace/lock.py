"""One run per workspace at a time."""

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
from segpipe.workspace.paths import STATE_DIR


@contextlib.contextmanager
def lock(root: Path) -> Iterator[None]:
    """Hold the workspace: one run at a time. A BusyError names who holds it; the lock of a process that died is free."""
    from filelock import FileLock, Timeout

    state = root / STATE_DIR
    state.mkdir(exist_ok=True)
    holder = state / "holder.json"
    held = FileLock(state / "lock", timeout=0)
    try:
        held.acquire()
    except Timeout as error:
        raise BusyError(
            "another run holds the workspace", where=root, found=_holder(holder), fix="wait for it, or end that process"
        ) from error
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        write_json(holder, {"pid": os.getpid(), "command": " ".join(sys.argv), "since": since})
        yield
    finally:
        holder.unlink(missing_ok=True)
        held.release()


def _holder(path: Path) -> str:
    """Who holds the lock, in words. The file may be a moment younger than the lock, so that its absence means nothing."""
    try:
        told = json.loads(path.read_text())
        return f"process {told['pid']} since {told['since']}: {told['command']}"
    except (OSError, ValueError, KeyError):
        return "a process that started just now"

"""Child processes: their environment, the signal that ended them, and how to end them with all their children."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

GRACE_S = 10.0
"""Seconds that a process gets to stop after SIGTERM before it is killed."""


def environment_with(extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables of this process with `extra` added.

    The folder of this interpreter comes first on PATH, so that `segpipe` in dvc.yaml is this installation.
    """
    programs = str(Path(sys.executable).parent)
    path = os.pathsep.join([programs, os.environ.get("PATH", os.defpath)])
    quiet = {"DVC_NO_ANALYTICS": "1", "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **quiet, "PATH": path, **extra}


def signal_name(code: int) -> str | None:
    """Return the name of the signal that ended a command, or None if it ended by itself.

    Args:
        code: the exit code that DVC saw: -9 if the shell replaced itself by the command, 137 if it waited for it.
    """
    number = -code if code < 0 else code - 128
    return (
        signal.Signals(number).name
        if number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS)
        else None
    )


def end_group(process: subprocess.Popen[str]) -> None:
    """End a process group: SIGTERM first, then SIGKILL after `GRACE_S` seconds.

    Args:
        process: the leader of the group, started with `start_new_session=True`.
    """
    deadline = time.monotonic() + GRACE_S
    for signum in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, signum)
            while time.monotonic() < deadline:
                process.poll()  # reap the leader: a zombie still counts as a member of the group
                os.killpg(process.pid, 0)
                time.sleep(0.05)
        except ProcessLookupError:
            return
    process.wait()


def stop_tree(process: subprocess.Popen[bytes], grace_s: float = GRACE_S) -> None:
    """End a server and its children: SIGTERM lets it finish its requests, SIGKILL ends what is left after `grace_s` seconds.

    The server's workers have their own sessions, so that a signal to its process group would not reach them.
    """
    import psutil

    try:
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        tree = []
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace_s)
    _, alive = psutil.wait_procs(tree, timeout=1.0)
    for straggler in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            straggler.kill()
    process.wait()

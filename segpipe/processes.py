"""Child processes: their environment, what ended them, and ending them with everything that they started."""

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
"""How long a stage that is asked to stop (SIGTERM) may take before it is killed."""


def environment_with(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment, with its own interpreter's programs first on PATH, so that `segpipe` in dvc.yaml is this one."""
    programs = str(Path(sys.executable).parent)
    path = os.pathsep.join([programs, os.environ.get("PATH", os.defpath)])
    quiet = {"DVC_NO_ANALYTICS": "1", "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **quiet, "PATH": path, **extra}


def signal_name(code: int) -> str | None:
    """The signal that ended a command, by the exit code that DVC saw: -9 where the shell became the command, 137 where it waited."""
    number = -code if code < 0 else code - 128
    return (
        signal.Signals(number).name
        if number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS)
        else None
    )


def end_group(process: subprocess.Popen[str]) -> None:
    """End a process that leads a session of its own, and all it started: first asked, then, after `GRACE_S`, killed."""
    deadline = time.monotonic() + GRACE_S
    for signum in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, signum)
            while time.monotonic() < deadline:
                process.poll()  # reaps the leader: a zombie still counts as a member
                os.killpg(process.pid, 0)
                time.sleep(0.05)
        except ProcessLookupError:
            return
    process.wait()


def stop_tree(process: subprocess.Popen[bytes], grace_s: float = GRACE_S) -> None:
    """End a server and all that it started: SIGTERM lets it finish its requests, SIGKILL ends what is left after `grace_s`.

    The server's workers have sessions of their own, so that killing its process group would not reach them.
    """
    import psutil  # type: ignore[import-untyped]

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

"""Run one stage of the pipeline in its own process group, so that stopping it stops everything that it started."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from segpipe.errors import BusyError, ConfigError
from segpipe.outcome import OUTCOME_VARIABLE
from segpipe.processes import end_group, environment_with, signal_name
from segpipe.workspace.paths import Paths

_DVC_OUTPUT = re.compile(
    r"^(Running stage '.*':|> .*|Updating lock file '.*'|Generating lock file '.*'|To track the changes with git, run:"
    r"|\tgit add .*|To enable auto staging, run:|\tdvc config .*|Use `dvc push` to send your updates to remote storage\."
    r"|ERROR: failed to reproduce .*|Stage '.*' is cached - skipping run, checking out outputs|)$"
)
"""Lines that DVC prints around a stage's own output."""
_MISSING_SECTION = re.compile(r"Parameters (.*) are missing from 'params\.yaml'")
"""DVC's error if params.yaml has no section that a stage depends on."""


@dataclass(frozen=True)
class StageRun:
    """The result of running a stage.

    code: exit code of the stage's own command; 130 if it was stopped. seconds: wall-clock time. error: one line, None if it succeeded.
    """

    name: str
    code: int
    seconds: float
    error: str | None = None

    @property
    def ok(self) -> bool:
        """True if the stage succeeded."""
        return self.code == 0


def run_stage(
    root: Path,
    name: str,
    on_line: Callable[[str], None],
    *,
    stop: threading.Event | None = None,
    timeout: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> StageRun:
    """Run one stage (`dvc repro -s NAME`). The stages upstream must be up to date.

    The whole process group of the stage is ended if `stop` is set, after `timeout`, or if this thread is interrupted.

    Args:
        root: the workspace.
        name: the stage, such as "train@unet".
        on_line: called with each line of output as it comes, without DVC's own lines.
        stop: an event that ends the stage.
        timeout: seconds after which the stage is ended; None: no limit.
        environment: variables to add to the stage's environment.

    Returns:
        Exit code, time and error line of the stage.
    """
    outcome_file = Paths(root.resolve()).outcome(name)
    outcome_file.parent.mkdir(parents=True, exist_ok=True)
    outcome_file.unlink(missing_ok=True)
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "-s", name],
        cwd=root,
        env=environment_with({OUTCOME_VARIABLE: str(outcome_file), **(environment or {})}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        bufsize=1,
        start_new_session=True,
    )
    ended = threading.Event()
    stop_reason: list[str] = []
    guard = threading.Thread(
        target=_guard, args=(process, ended, stop or threading.Event(), timeout, stop_reason), daemon=True
    )
    guard.start()
    last_lines: list[str] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            text = line.rstrip()
            last_lines = [*last_lines[-20:], text]
            if not _DVC_OUTPUT.match(text):
                on_line(text)
        process.wait()
    except BaseException:
        end_group(process)
        raise
    finally:
        ended.set()
        guard.join()
    seconds = time.monotonic() - start
    if process.returncode == 0:
        return StageRun(name, 0, seconds)
    if stop_reason:
        return StageRun(name, 130, seconds, f"{name}: {stop_reason[0]}")
    code, error = _failure(outcome_file, process.returncode, last_lines, name)
    return StageRun(name, code, seconds, error)


def _guard(
    process: subprocess.Popen[str],
    ended: threading.Event,
    stop: threading.Event,
    timeout: float | None,
    stop_reason: list[str],
) -> None:
    """End the process group once `stop` is set or the time is over, and append the reason to `stop_reason`."""
    deadline = time.monotonic() + timeout if timeout is not None else float("inf")
    while not ended.wait(0.1):
        if stop.is_set() or time.monotonic() > deadline:
            stop_reason.append("stopped" if stop.is_set() else f"took longer than {timeout:g} s")
            end_group(process)
            return


def _failure(outcome_file: Path, returncode: int, last_lines: list[str], name: str) -> tuple[int, str]:
    """Return exit code and error line of a failed stage: from segpipe's outcome file if there is one, else from DVC's output."""
    outcome = json.loads(outcome_file.read_text()) if outcome_file.exists() else {"code": 0}
    if outcome["code"]:
        return int(outcome["code"]), str(outcome["message"])
    errors = [line.removeprefix("ERROR:").strip() for line in last_lines if line.startswith("ERROR:")]
    if any("is busy, it is being blocked by" in line for line in errors):
        return BusyError.exit_code, f"{name}: {errors[-1]}"
    missing = _MISSING_SECTION.search(errors[-1]) if errors else None
    if missing:
        keys = re.findall(r"[\w.]+", missing[1])
        sections = " and ".join(f"`{key}: {{}}`" for key in keys)
        error = ConfigError(
            f"no section {' and no '.join(keys)}", where="params.yaml", fix=f"add {sections} to use the defaults"
        )
        return error.exit_code, str(error)
    match = re.search(r"exited with (-?\d+)", errors[-1]) if errors else None
    if not match:
        return 1, f"stage {name} failed: {errors[-1] if errors else f'dvc exited with {returncode}'}"
    code = int(match[1])
    killer = signal_name(code)
    reason = f"killed by {killer}" if killer else f"exit code {code}"
    output = [line for line in last_lines if not _DVC_OUTPUT.match(line) and not line.startswith("ERROR:")]
    detail = f": {output[-1]}" if output else ""
    return (1 if killer else code), f"stage {name} failed, {reason}{detail}"

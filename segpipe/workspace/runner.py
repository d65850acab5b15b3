"""Running one stage of the pipeline, in a process group of its own, so that stopping it stops everything that it started."""

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
from segpipe.workspace.paths import STATE_DIR

_CHATTER = re.compile(
    r"^(Running stage '.*':|> .*|Updating lock file '.*'|Generating lock file '.*'|To track the changes with git, run:"
    r"|\tgit add .*|To enable auto staging, run:|\tdvc config .*|Use `dvc push` to send your updates to remote storage\."
    r"|ERROR: failed to reproduce .*|Stage '.*' is cached - skipping run, checking out outputs|)$"
)
"""What DVC prints around a stage's own output."""
_LACKING = re.compile(r"Parameters (.*) are missing from 'params\.yaml'")
"""What DVC says where a section that a stage depends on is left out of params.yaml."""


@dataclass(frozen=True)
class StageRun:
    """What became of a run of a stage: `code` is the exit code of the stage's own command, `error` its last word."""

    name: str
    code: int
    seconds: float
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the stage ran to its end."""
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
    """Run one stage (`dvc repro -s NAME`); its upstream must be up to date.

    `on_line` gets each line of output as it comes. When `stop` is set, or after `timeout` seconds, or when this thread is
    interrupted, the stage's whole process group is ended. `environment` is added to the stage's own.
    """
    outcome = root.resolve() / STATE_DIR / "outcomes" / f"{name}.json"
    outcome.parent.mkdir(parents=True, exist_ok=True)
    outcome.unlink(missing_ok=True)
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "-s", name],
        cwd=root,
        env=environment_with({OUTCOME_VARIABLE: str(outcome), **(environment or {})}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        bufsize=1,
        start_new_session=True,
    )
    ended = threading.Event()
    why: list[str] = []
    guard = threading.Thread(target=_guard, args=(process, ended, stop or threading.Event(), timeout, why), daemon=True)
    guard.start()
    tail: list[str] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            text = line.rstrip()
            tail = [*tail[-20:], text]
            if not _CHATTER.match(text):
                on_line(text)
        process.wait()
    except BaseException:
        end_group(process)
        raise
    finally:
        ended.set()
        guard.join()
    seconds = time.monotonic() - began
    if process.returncode == 0:
        return StageRun(name, 0, seconds)
    if why:
        return StageRun(name, 130, seconds, f"{name}: {why[0]}")
    return StageRun(name, *_cause(outcome, process.returncode, tail, seconds, name))


def _guard(
    process: subprocess.Popen[str], ended: threading.Event, stop: threading.Event, timeout: float | None, why: list[str]
) -> None:
    """End the group once `stop` is set or the time is over; `why` then says which."""
    deadline = time.monotonic() + timeout if timeout is not None else float("inf")
    while not ended.wait(0.1):
        if stop.is_set() or time.monotonic() > deadline:
            why.append("stopped" if stop.is_set() else f"took longer than {timeout:g} s")
            end_group(process)
            return


def _cause(outcome: Path, returncode: int, tail: list[str], seconds: float, name: str) -> tuple[int, float, str]:
    """Exit code, seconds and error line of a stage that failed: segpipe's own word where it left one, else DVC's."""
    told = json.loads(outcome.read_text()) if outcome.exists() else {"code": 0}
    if told["code"]:
        return int(told["code"]), seconds, str(told["message"])
    errors = [line.removeprefix("ERROR:").strip() for line in tail if line.startswith("ERROR:")]
    if any("is busy, it is being blocked by" in line for line in errors):
        return BusyError.exit_code, seconds, f"{name}: {errors[-1]}"
    lacking = _LACKING.search(errors[-1]) if errors else None
    if lacking:
        keys = ", ".join(re.findall(r"[\w.]+", lacking[1]))
        fix = f"write `{keys}: {{}}` into it" if "," not in keys else "write each of them into it, as `NAME: {}`"
        return ConfigError.exit_code, seconds, f"params.yaml: DVC misses {keys}; {fix} to have its defaults"
    match = re.search(r"exited with (-?\d+)", errors[-1]) if errors else None
    said = [line for line in tail if not _CHATTER.match(line) and not line.startswith("ERROR:")]
    if match:
        code = int(match[1])
        last = f": {said[-1]}" if said else ""
        killer = signal_name(code)
        how = f"killed by {killer}" if killer else f"exit code {code}"
        return (1 if killer else code), seconds, f"stage {name} failed, {how}{last}"
    return 1, seconds, f"stage {name} failed: {errors[-1] if errors else f'dvc ended with {returncode}'}"

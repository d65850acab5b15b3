"""The DVC pipeline of a workspace: its graph, what is stale in it, and running one stage. The only module that knows DVC.

Graph and status are read in this process (one `Repo` at a time: DVC's is not thread-safe); a stage runs in a process group of
its own, so that stopping it stops everything that it started.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segpipe.errors import BusyError, ConfigError, MissingError, SegpipeError
from segpipe.files import write_json

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import Stage as DvcStage

STATE_DIR = ".segpipe"
"""What segpipe keeps in a workspace for itself: locks, checkpoints, releases. Neither Git nor DVC sees it."""

PIPELINE_FILE = "dvc.yaml"
DATA_POINTER = "data.dvc"
OUTCOME_VARIABLE = "SEGPIPE_OUTCOME"
"""Names the file in which `segpipe` leaves its exit code and error line: DVC does not pass a stage's exit code on."""

GRACE_S = 10.0
"""How long a stage that is asked to stop (SIGTERM) may take before it is killed."""

_REPO = threading.Lock()
_CHATTER = re.compile(
    r"^(Running stage '.*':|> .*|Updating lock file '.*'|Generating lock file '.*'|To track the changes with git, run:"
    r"|\tgit add .*|To enable auto staging, run:|\tdvc config .*|Use `dvc push` to send your updates to remote storage\."
    r"|ERROR: failed to reproduce .*|Stage '.*' is cached - skipping run, checking out outputs|)$"
)
"""What DVC prints around a stage's own output."""
_LACKING = re.compile(r"Parameters (.*) are missing from 'params\.yaml'")
"""What DVC says where a section that a stage depends on is left out of params.yaml."""


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml. `upstream` names the stages whose outs it reads; a `device` stage wants a device for itself."""

    name: str
    cmd: str
    upstream: tuple[str, ...]
    resource: Literal["device", "any"] = "any"


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


@contextlib.contextmanager
def _open(root: Path) -> Iterator[Repo]:
    """The DVC repository of a workspace, locked. A new one each time (30 ms): what a stage wrote meanwhile is seen."""
    with _REPO:
        _check_repo(root)
        os.environ.setdefault("DVC_NO_ANALYTICS", "1")
        from dvc.exceptions import DvcException
        from dvc.lock import LockError
        from dvc.repo import Repo, lock_repo

        try:
            repo = Repo(str(root), _wait_for_lock=True)
            try:
                with lock_repo(repo):
                    yield repo
            finally:
                repo.close()
        except LockError as error:
            raise BusyError(
                _first_line(error), where=root, fix="wait for the process that it names, or end it"
            ) from error
        except DvcException as error:
            cause = error.__cause__ or error
            raise ConfigError(
                f"DVC cannot read the pipeline: {_first_line(cause)}", where=root / PIPELINE_FILE
            ) from error


def _check_repo(root: Path) -> None:
    if not (root / ".dvc").is_dir():
        raise ConfigError("no DVC repository here", where=root, fix=f"segpipe init {root}")


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _stages(repo: Repo) -> dict[str, DvcStage]:
    """The stages of the workspace's own dvc.yaml, by name."""
    from dvc.stage import PipelineStage

    pipeline_file = Path(repo.root_dir) / PIPELINE_FILE
    return {s.name: s for s in repo.index.stages if isinstance(s, PipelineStage) and Path(s.path) == pipeline_file}


def graph(root: Path) -> dict[str, Stage]:
    """The stages of dvc.yaml, each after those that it reads from."""
    with _open(root) as repo:
        stages = _stages(repo)
        own, edges = set(stages.values()), repo.index.graph
        upstream = {name: [up.name for up in edges.successors(stage) if up in own] for name, stage in stages.items()}
        return {name: _stage(stages[name], upstream[name]) for name in TopologicalSorter(upstream).static_order()}


def _stage(stage: DvcStage, upstream: list[str]) -> Stage:
    resource = (stage.meta or {}).get("resource", "any")
    if resource not in ("device", "any"):
        raise ConfigError(
            f"stage {stage.name}: unknown meta.resource", where=PIPELINE_FILE, found=resource, expected="device or any"
        )
    return Stage(stage.name, str(stage.cmd), tuple(upstream), resource)


def ancestors(stages: Mapping[str, Stage], name: str) -> set[str]:
    """Every stage that a stage reads from, directly or through others."""
    found: set[str] = set()
    todo = list(stages[name].upstream)
    while todo:
        if (current := todo.pop()) not in found:
            found.add(current)
            todo.extend(stages[current].upstream)
    return found


def is_stale(root: Path, name: str) -> bool:
    """Whether `dvc repro -s NAME` would do anything now. Says nothing of stages upstream."""
    with _open(root) as repo:
        return bool(_stage_named(repo, name).changed())


def stale(root: Path) -> dict[str, str]:
    """The stages that are not what dvc.lock says, each with the reason; those that merely follow a stale one are not named."""
    with _open(root) as repo:
        reasons = {name: _reason(stage.status(), repo.root_dir) for name, stage in _stages(repo).items()}
    return {name: reason for name, reason in reasons.items() if reason}


def _reason(status: Mapping[str, list[str | dict[str, Any]]], root: str) -> str:
    """DVC's status of a stage as words: 'data modified, params.yaml new'. DVC names paths as seen from the current folder."""
    words: list[str] = []
    for part in itertools.chain.from_iterable(status.values()):
        if isinstance(part, str):
            words.append(part)
            continue
        for entries in part.values():
            for path, change in entries.items():
                detail = "changed: " + ", ".join(change) if isinstance(change, dict) else change
                words.append(f"{os.path.relpath(path, root)} {detail}")
    return ", ".join(words)


def _stage_named(repo: Repo, name: str) -> DvcStage:
    stages = _stages(repo)
    if name not in stages:
        raise ConfigError("no such stage", where=PIPELINE_FILE, found=name, expected=" or ".join(stages))
    return stages[name]


# --- data ---------------------------------------------------------------------------------------------------------------------

DataState = Literal["absent", "untracked", "missing", "changed", "clean"]


def data_state(root: Path) -> DataState:
    """How data/ stands to data.dvc. `changed` also means: right, but not in DVC's cache; `missing`: only the pointer is there."""
    present, tracked = (root / "data").is_dir(), (root / DATA_POINTER).exists()
    if not tracked:
        return "untracked" if present else "absent"
    if not present:
        return "missing"
    with _open(root) as repo:
        stage = next(s for s in repo.index.stages if Path(s.path) == Path(repo.root_dir) / DATA_POINTER)
        return "changed" if stage.changed() else "clean"


def add_data(root: Path) -> None:
    """`dvc add data`: data.dvc names what is in data/ now, and DVC's cache holds it."""
    if not (root / "data").is_dir():
        raise MissingError(
            "no data here", where=root / "data", fix="segpipe data import SRC --format folder, or segpipe data demo"
        )
    _dvc(root, "add", "data")


def pull_data(root: Path) -> None:
    """Bring back the data that data.dvc names: from DVC's cache, or else from its remote."""
    try:
        _dvc(root, "checkout", DATA_POINTER)
    except SegpipeError:
        try:
            _dvc(root, "pull", DATA_POINTER)
        except SegpipeError as error:
            raise MissingError(
                f"data.dvc names data that are neither here nor in DVC's cache nor in a remote ({error.what})", where=root / DATA_POINTER,
                fix="dvc remote add -d NAME URL && dvc pull, or segpipe data demo where it names the demo data",
            ) from error  # fmt: skip


def init_repo(root: Path) -> None:
    """Make a Git work tree a DVC repository, where it is none yet."""
    if not (root / ".dvc" / "config").exists():
        _dvc(root, "init", "--quiet")


def remotes(root: Path) -> dict[str, str]:
    """DVC's remotes: name -> address."""
    with _open(root) as repo:
        return {name: str(settings.get("url", "")) for name, settings in repo.config["remote"].items()}


def _dvc(root: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root,
        env=_environment({}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.startswith("ERROR:")]
        reason = lines[0].removeprefix("ERROR:").strip() if lines else f"exit code {done.returncode}"
        raise ConfigError(f"`dvc {' '.join(arguments)}` failed: {reason}", where=root)


# --- running ------------------------------------------------------------------------------------------------------------------


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
        env=_environment({OUTCOME_VARIABLE: str(outcome), **(environment or {})}),
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
        killer = _killer(code)
        how = f"killed by {killer}" if killer else f"exit code {code}"
        return (1 if killer else code), seconds, f"stage {name} failed, {how}{last}"
    return 1, seconds, f"stage {name} failed: {errors[-1] if errors else f'dvc ended with {returncode}'}"


def _killer(code: int) -> str | None:
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


def record_outcome(code: int, message: str) -> None:
    """Tell the run that started this stage (if one did) what it ends with, and how many seconds the command itself took."""
    if target := os.environ.get(OUTCOME_VARIABLE):
        import psutil  # type: ignore[import-untyped]

        seconds = round(time.time() - psutil.Process().create_time(), 2)
        write_json(Path(target), {"code": code, "message": message, "seconds": seconds})


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment, with its own interpreter's programs first on PATH, so that `segpipe` in dvc.yaml is this one."""
    programs = str(Path(sys.executable).parent)
    path = os.pathsep.join([programs, os.environ.get("PATH", os.defpath)])
    quiet = {"DVC_NO_ANALYTICS": "1", "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **quiet, "PATH": path, **extra}

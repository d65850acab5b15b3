"""Read the DVC pipeline of a workspace: its graph, its stale stages, and the state of its data.

This module and `revisions` use DVC's Python API; `dvc` and `runner` call its command line. A DVC `Repo` is not thread-safe, so a lock
admits one at a time.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segpipe.errors import BusyError, ConfigError, MissingError, SegpipeError
from segpipe.progress import say
from segpipe.workspace.dvc import run_dvc
from segpipe.workspace.paths import Paths

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import Stage as DvcStage

PIPELINE_FILE = "dvc.yaml"
DATA_POINTER = "data.dvc"
_REPO_LOCK = threading.Lock()


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml.

    upstream: the names of the stages whose outs it reads. resource: "device" if it needs the GPU (or all processor cores) for itself.
    """

    name: str
    cmd: str
    upstream: tuple[str, ...]
    resource: Literal["device", "any"] = "any"


@contextlib.contextmanager
def _open(root: Path) -> Iterator[Repo]:
    """Open and lock the DVC repository of a workspace. It is opened again each time (30 ms) to see what stages wrote meanwhile."""
    with _REPO_LOCK:
        _check_repo(root)
        os.environ.setdefault("DVC_NO_ANALYTICS", "1")
        from dvc.exceptions import DvcException
        from dvc.lock import LockError
        from dvc.repo import Repo, lock_repo

        _remove_log_handlers()
        try:
            repo = Repo(str(root), _wait_for_lock=True)
            try:
                with lock_repo(repo):
                    yield repo
            finally:
                repo.close()
        except LockError as error:
            raise BusyError(
                _first_line(error), where=root, fix="wait for the process that DVC names, or end it"
            ) from error
        except DvcException as error:
            cause = error.__cause__ or error
            raise ConfigError(
                f"DVC cannot read the pipeline: {_first_line(cause)}", where=root / PIPELINE_FILE
            ) from error


def _remove_log_handlers() -> None:
    """Remove DVC's log handlers: it binds them to the streams at import time, and they raise once such a stream is closed."""
    for name in ("dvc", "dvc_objects", "dvc_data"):
        logging.getLogger(name).handlers.clear()


def _check_repo(root: Path) -> None:
    if not (root / ".dvc").is_dir():
        raise ConfigError("no DVC repository here", where=root, fix=f"segpipe init {root}")


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _stages(repo: Repo) -> dict[str, DvcStage]:
    """Return the stages of the workspace's own dvc.yaml, by name."""
    from dvc.stage import PipelineStage

    pipeline_file = Path(repo.root_dir) / PIPELINE_FILE
    return {
        stage.name: stage
        for stage in repo.index.stages
        if isinstance(stage, PipelineStage) and Path(stage.path) == pipeline_file
    }


def graph(root: Path) -> dict[str, Stage]:
    """Return the stages of dvc.yaml by name, each after those that it reads from.

    Raises:
        ConfigError: the folder is not a DVC repository, or dvc.yaml is not valid.
        BusyError: another process holds DVC's lock.
    """
    with _open(root) as repo:
        stages = _stages(repo)
        known, edges = set(stages.values()), repo.index.graph
        upstream = {
            name: [other.name for other in edges.successors(stage) if other in known] for name, stage in stages.items()
        }
        return {name: _stage(stages[name], upstream[name]) for name in TopologicalSorter(upstream).static_order()}


def _stage(stage: DvcStage, upstream: list[str]) -> Stage:
    resource = (stage.meta or {}).get("resource", "any")
    if resource not in ("device", "any"):
        raise ConfigError(
            f"stage {stage.name}: unknown meta.resource", where=PIPELINE_FILE, found=resource, expected="device or any"
        )
    return Stage(stage.name, str(stage.cmd), tuple(upstream), resource)


def ancestors(stages: Mapping[str, Stage], name: str) -> set[str]:
    """Return the names of all stages that a stage reads from, directly or through others."""
    names: set[str] = set()
    pending = list(stages[name].upstream)
    while pending:
        if (current := pending.pop()) not in names:
            names.add(current)
            pending.extend(stages[current].upstream)
    return names


def is_stale(root: Path, name: str) -> bool:
    """Return whether `dvc repro -s NAME` would run the stage now. Stages upstream are not considered."""
    with _open(root) as repo:
        return bool(_stage_named(repo, name).changed())


def stale(root: Path) -> dict[str, str]:
    """Return the stages that differ from dvc.lock, each with the reason, such as "data modified".

    Stages that are only downstream of a stale stage are not included.
    """
    with _open(root) as repo:
        reasons = {name: _reason(stage.status(), repo.root_dir) for name, stage in _stages(repo).items()}
    return {name: reason for name, reason in reasons.items() if reason}


def _reason(status: Mapping[str, list[str | dict[str, Any]]], root: str) -> str:
    """Format DVC's status of a stage: 'data modified, params.yaml new'. DVC's paths are relative to the working directory."""
    reasons: list[str] = []
    for entry in itertools.chain.from_iterable(status.values()):
        if isinstance(entry, str):
            reasons.append(entry)
            continue
        for changes in entry.values():
            for path, change in changes.items():
                detail = "changed: " + ", ".join(change) if isinstance(change, dict) else change
                reasons.append(f"{os.path.relpath(path, root)} {detail}")
    return ", ".join(reasons)


def _stage_named(repo: Repo, name: str) -> DvcStage:
    stages = _stages(repo)
    if name not in stages:
        raise ConfigError("no such stage", where=PIPELINE_FILE, found=name, expected=" or ".join(stages))
    return stages[name]


@contextlib.contextmanager
def record_manual_run(root: Path, name: str) -> Iterator[None]:
    """Record in dvc.lock that a stage was run, as if DVC had run it. The stage runs inside the `with` block.

    Nothing is recorded if an input of the stage changes meanwhile.

    Args:
        root: the workspace.
        name: the stage, such as "train@unet".
    """
    before = _inputs(root, name)
    yield
    if _inputs(root, name) != before:
        say(f"{name}: its inputs changed while it ran, so `segpipe run` will run it again")
        return
    with _open(root) as repo, contextlib.chdir(root):  # DVC resolves stage names from the working directory
        repo.commit(_stage_named(repo, name).addressing, force=True)


def _inputs(root: Path, name: str) -> list[Any]:
    """Return the paths and hashes of what a stage reads, and the values of its parameters."""
    with _open(root) as repo:
        stage = _stage_named(repo, name)
        stage.save_deps(allow_missing=True)
        return [(dep.def_path, dep.hash_info) for dep in stage.deps]


DataState = Literal["absent", "untracked", "missing", "changed", "clean"]
"""The state of data/ relative to data.dvc, DVC's pointer to the versioned data.

absent: neither exists; untracked: there is only data/; missing: there is only data.dvc; changed: data/ differs from data.dvc, or is not in
the DVC cache; clean: they match.
"""


def data_state(root: Path) -> DataState:
    """Compare data/ with data.dvc."""
    present, tracked = Paths(root).data.is_dir(), (root / DATA_POINTER).exists()
    if not tracked:
        return "untracked" if present else "absent"
    if not present:
        return "missing"
    with _open(root) as repo:
        pointer = Path(repo.root_dir) / DATA_POINTER
        stage = next(stage for stage in repo.index.stages if Path(stage.path) == pointer)
        return "changed" if stage.changed() else "clean"


def add_data(root: Path) -> None:
    """Run `dvc add data`, which writes the current version of data/ to data.dvc and to the DVC cache."""
    if not Paths(root).data.is_dir():
        raise MissingError("no data here", where=Paths(root).data, fix="segpipe data import SRC, or segpipe data demo")
    run_dvc(root, "add", "data")


def pull_data(root: Path) -> None:
    """Restore the data that data.dvc points to, from the DVC cache or else from the DVC remote.

    Raises:
        MissingError: neither has them.
    """
    try:
        run_dvc(root, "checkout", DATA_POINTER)
    except SegpipeError:
        try:
            run_dvc(root, "pull", DATA_POINTER)
        except SegpipeError as error:
            raise MissingError(
                f"the data that data.dvc points to are neither in the DVC cache nor in a DVC remote ({error.what})",
                where=root / DATA_POINTER,
                fix="dvc remote add -d NAME URL && dvc pull; if they are the demo data: segpipe data demo",
            ) from error


def init_repo(root: Path) -> None:
    """Make a Git work tree a DVC repository, unless it is one already."""
    if not (root / ".dvc" / "config").exists():
        run_dvc(root, "init", "--quiet")


def remotes(root: Path) -> dict[str, str]:
    """Return the DVC remotes of a workspace: URL by name."""
    with _open(root) as repo:
        return {name: str(settings.get("url", "")) for name, settings in repo.config["remote"].items()}

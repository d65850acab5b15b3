"""The DVC pipeline of a workspace: its graph, what is stale in it, and its data. With `revisions`, the only module that knows DVC.

Graph and status are read in this process, one `Repo` at a time: DVC's is not thread-safe. `segpipe.workspace.runner` runs the stages.
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

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import Stage as DvcStage

PIPELINE_FILE = "dvc.yaml"
DATA_POINTER = "data.dvc"
_REPO = threading.Lock()


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml. `upstream` names the stages whose outs it reads; a `device` stage wants a device for itself."""

    name: str
    cmd: str
    upstream: tuple[str, ...]
    resource: Literal["device", "any"] = "any"


@contextlib.contextmanager
def _open(root: Path) -> Iterator[Repo]:
    """The DVC repository of a workspace, locked. A new one each time (30 ms): what a stage wrote meanwhile is seen."""
    with _REPO:
        _check_repo(root)
        os.environ.setdefault("DVC_NO_ANALYTICS", "1")
        from dvc.exceptions import DvcException
        from dvc.lock import LockError
        from dvc.repo import Repo, lock_repo

        _unhandle_logs()
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


def _unhandle_logs() -> None:
    """Leave DVC's records to the handlers of this process.

    On import DVC binds handlers of its own to the streams of that moment, and they raise once such a stream is closed.
    """
    for name in ("dvc", "dvc_objects", "dvc_data"):
        logging.getLogger(name).handlers.clear()


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


@contextlib.contextmanager
def record_manual_run(root: Path, name: str) -> Iterator[None]:
    """Around what a stage does: dvc.lock then says so, as if DVC had run it; unless what it reads changed meanwhile."""
    before = _inputs(root, name)
    yield
    if _inputs(root, name) != before:
        say(f"{name}: what it reads was changed meanwhile, so `segpipe run` does it again")
        return
    with _open(root) as repo, contextlib.chdir(root):  # DVC looks for a stage from the current folder
        repo.commit(_stage_named(repo, name).addressing, force=True)


def _inputs(root: Path, name: str) -> list[Any]:
    """Paths and hashes of what a stage reads, and the values of its parameters."""
    with _open(root) as repo:
        stage = _stage_named(repo, name)
        stage.save_deps(allow_missing=True)
        return [(dep.def_path, dep.hash_info) for dep in stage.deps]


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
    run_dvc(root, "add", "data")


def pull_data(root: Path) -> None:
    """Bring back the data that data.dvc names: from DVC's cache, or else from its remote."""
    try:
        run_dvc(root, "checkout", DATA_POINTER)
    except SegpipeError:
        try:
            run_dvc(root, "pull", DATA_POINTER)
        except SegpipeError as error:
            raise MissingError(
                f"data.dvc names data that are neither here nor in DVC's cache nor in a remote ({error.what})",
                where=root / DATA_POINTER,
                fix="dvc remote add -d NAME URL && dvc pull, or segpipe data demo where it names the demo data",
            ) from error


def init_repo(root: Path) -> None:
    """Make a Git work tree a DVC repository, where it is none yet."""
    if not (root / ".dvc" / "config").exists():
        run_dvc(root, "init", "--quiet")


def remotes(root: Path) -> dict[str, str]:
    """DVC's remotes: name -> address."""
    with _open(root) as repo:
        return {name: str(settings.get("url", "")) for name, settings in repo.config["remote"].items()}

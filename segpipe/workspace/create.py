"""A workspace: a folder with dvc.yaml, params.yaml and data/, at the top of a Git repository of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import segpipe
from segpipe.errors import BusyError, ConfigError
from segpipe.files import atomic_path, write_json
from segpipe.workspace.git import commit_staged, git
from segpipe.workspace.paths import STATE_DIR
from segpipe.workspace.pipeline import PIPELINE_FILE, init_repo

PARAMS_FILE = "params.yaml"
TEMPLATE_FILES = ("dvc.yaml", "params.yaml", "bentofile.yaml", "prefect.yaml", ".dvc/config", ".dvcignore")
"""What a workspace gets as it stands in the template, beside flows/."""

GITIGNORE = """\
# What DVC versions, or what can be made again.
/data
/artifacts
/models
/reports
/bundle
/evaluation/*/per_image.parquet
/evaluation/*/gallery
/predictions
/.segpipe/
__pycache__/
"""


def template() -> Path:
    """The folder that workspaces are made from: the top of the checkout that segpipe runs from, or what the wheel carries."""
    package = Path(segpipe.__file__).resolve().parent
    checkout = package.parent
    return checkout if is_workspace(checkout) and (checkout / "pyproject.toml").exists() else package / "template"


def is_workspace(folder: Path) -> bool:
    """Whether a folder holds what every workspace holds."""
    return (folder / PIPELINE_FILE).is_file() and (folder / PARAMS_FILE).is_file()


def create(root: Path) -> bool:
    """Make `root` a workspace: template, Git and DVC repository, first commit. True when there was none before.

    In a workspace, adds what is missing and changes nothing that is there. Any other folder with something in it is refused.
    """
    fresh = not is_workspace(root)
    if fresh and root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ConfigError(
            "is not empty, and no workspace",
            where=root,
            fix="name a folder that does not exist yet, and pass yours with --data",
        )
    root.mkdir(parents=True, exist_ok=True)
    if not (root / ".git").exists():
        git(root, "init", "--quiet", "--initial-branch", "main")
    init_repo(root)
    added = _copy_template(root, fresh)
    if added:
        git(root, "add", "--force", ".dvc/config", ".dvc/.gitignore", *added)
        commit_staged(root, "A segpipe workspace")
    return fresh


def _copy_template(root: Path, fresh: bool) -> list[str]:
    """Copy what is missing (of a fresh workspace: everything, over DVC's own defaults). Returns the paths written."""
    source = template()
    flows = [f"flows/{path.name}" for path in sorted((source / "flows").glob("*.py"))]
    wanted = [name for name in (*TEMPLATE_FILES, *flows) if fresh or not (root / name).exists()]
    for name in wanted:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(root / name) as path:
            shutil.copyfile(source / name, path)
    for name, nobody in (("champion.json", {"version": None}), ("reference.json", {})):
        if not (root / name).exists():
            write_json(root / name, nobody)
            wanted.append(name)
    if not (root / ".gitignore").exists():
        (root / ".gitignore").write_text(GITIGNORE)
        wanted.append(".gitignore")
    return wanted


def check_repository(root: Path) -> None:
    """A workspace is the top of its own Git repository: its tags and commits are its releases."""
    if not (root / ".git").exists():
        raise ConfigError(
            "the workspace is not the top of a Git repository", where=root, fix=f"git -C {root} init, then commit"
        )


def find_root(start: Path) -> Path:
    """The workspace that a folder lies in: the nearest one upwards."""
    for folder in (start.resolve(), *start.resolve().parents):
        if is_workspace(folder):
            return folder
    raise ConfigError(
        "no workspace here, nor above",
        where=start.resolve(),
        expected=f"a folder with {PIPELINE_FILE} and {PARAMS_FILE}",
        fix="go to one, or name it with -C DIR, or make one: segpipe init DIR --data IMAGES",
    )


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


def set_params(root: Path, changes: Mapping[str, Any]) -> None:
    """Set keys of params.yaml, such as {"train.budget": "40s"}, keeping its comments. Nothing is written that does not check."""
    import io

    from ruamel.yaml import YAML

    from segpipe.config import parse_params
    from segpipe.files import write_text

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    path = root / PARAMS_FILE
    content = yaml.load(path)
    for key, value in changes.items():
        *sections, last = key.split(".")
        section = content
        for name in sections:
            section = section.setdefault(name, {})
        section[last] = value
    buffer = io.StringIO()
    yaml.dump(content, buffer)
    parse_params(buffer.getvalue())
    write_text(path, buffer.getvalue())


def prefect_environment(root: Path, quiet: bool = False) -> dict[str, str]:
    """Settings for Prefect beside what the user has set: offline, and with a database of the workspace's own.

    They count when Prefect is imported. `quiet` leaves the terminal to the flow's own lines; Prefect's log has everything.

    PREFECT_API_URL or PREFECT_HOME in the environment mean that the user runs a server: then that one is used.
    """
    chosen = {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    }
    if not {"PREFECT_API_URL", "PREFECT_HOME"} & os.environ.keys():
        home = root.resolve() / STATE_DIR / "prefect"
        home.mkdir(parents=True, exist_ok=True)
        chosen |= {"PREFECT_HOME": str(home), "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true"}
    if quiet:
        chosen["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    return {name: value for name, value in chosen.items() if name not in os.environ}

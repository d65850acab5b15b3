"""A workspace: a folder with dvc.yaml, params.yaml and data/, at the top of a Git repository of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import segpipe
from segpipe.errors import ConfigError
from segpipe.files import atomic_path, write_json
from segpipe.workspace.git import commit_staged, git
from segpipe.workspace.pipeline import init_repo
from segpipe.workspace.root import is_workspace

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


def create_workspace(root: Path) -> bool:
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

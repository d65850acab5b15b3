"""Create a workspace: a folder with dvc.yaml, params.yaml and data/, at the top of its own Git repository."""

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
"""Files that are copied from the template to a workspace, in addition to flows/."""

GITIGNORE = """\
# What DVC versions, and what can be made again.
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
    """Return the folder that workspaces are copied from: the checkout that segpipe runs from, else the template in the wheel."""
    package = Path(segpipe.__file__).resolve().parent
    checkout = package.parent
    return checkout if is_workspace(checkout) and (checkout / "pyproject.toml").exists() else package / "template"


def create_workspace(root: Path) -> bool:
    """Make `root` a workspace: copy the template, create the Git and DVC repository and the first commit.

    An existing workspace gets the files that it lacks; its other files stay as they are.

    Args:
        root: a folder that does not exist, is empty or is a workspace.

    Returns:
        True if the workspace is new, False if `root` was a workspace before.

    Raises:
        ConfigError: `root` is a file, or a folder with other content.
    """
    is_new = not is_workspace(root)
    if is_new and root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ConfigError(
            "the folder is not empty, and it is not a workspace",
            where=root,
            fix="name a folder that does not exist yet, and pass the one with your images as --data",
        )
    root.mkdir(parents=True, exist_ok=True)
    if not (root / ".git").exists():
        git(root, "init", "--quiet", "--initial-branch", "main")
    init_repo(root)
    written = _copy_template(root, is_new)
    if written:
        git(root, "add", "--force", ".dvc/config", ".dvc/.gitignore", *written)
        commit_staged(root, "A segpipe workspace")
    return is_new


def _copy_template(root: Path, is_new: bool) -> list[str]:
    """Copy the missing files (for a new workspace: all, since `dvc init` wrote some with its defaults); return their paths."""
    source = template()
    flows = [f"flows/{path.name}" for path in sorted((source / "flows").glob("*.py"))]
    written = [name for name in (*TEMPLATE_FILES, *flows) if is_new or not (root / name).exists()]
    for name in written:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(root / name) as path:
            shutil.copyfile(source / name, path)
    for name, no_champion in (("champion.json", {"version": None}), ("reference.json", {})):
        if not (root / name).exists():
            write_json(root / name, no_champion)
            written.append(name)
    if not (root / ".gitignore").exists():
        (root / ".gitignore").write_text(GITIGNORE)
        written.append(".gitignore")
    return written

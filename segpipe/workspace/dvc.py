"""Run the `dvc` command in a separate process."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from segpipe.errors import ConfigError, MissingError
from segpipe.files import copy_folder
from segpipe.processes import environment_with


def run_dvc(root: Path, *arguments: str) -> str:
    """Run `dvc ARGUMENTS`.

    Args:
        root: the folder to run it in.
        arguments: such as "add", "data".

    Returns:
        Its standard output, stripped.

    Raises:
        ConfigError: the command failed; the message has DVC's first error line.
    """
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root,
        env=environment_with({}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = (done.stderr + done.stdout).splitlines()
        errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
        reason = errors[0] if errors else f"exit code {done.returncode}: {' '.join(lines)[-300:]}"
        raise ConfigError(f"`dvc {' '.join(arguments)}` failed: {reason}", where=root)
    return done.stdout.strip()


def fetch_bundle(root: Path, revision: str, target: Path) -> None:
    """Copy the bundle of a Git revision to `target`, from the DVC cache or the DVC remote.

    Args:
        root: the workspace.
        revision: a commit, tag or branch.
        target: the folder to write; an existing one is replaced.

    Raises:
        MissingError: neither the cache nor the remote has the bundle.
    """
    fetch_out(root, revision, "bundle", target)


def fetch_out(root: Path, revision: str, out: str, target: Path) -> None:
    """Copy a folder that a stage wrote in a Git revision to `target`, from the DVC cache or the DVC remote.

    Args:
        root: the workspace.
        revision: a commit, tag or branch.
        out: the path of the folder in the workspace, such as "models/unet".
        target: the folder to write; an existing one is replaced.

    Raises:
        MissingError: neither the cache nor the remote has the folder.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        run_dvc(root, "get", str(root.resolve()), out, "--rev", revision, "--out", str(staging / "out"))
        copy_folder(staging / "out", target)
    except ConfigError as error:
        raise MissingError(
            f"{out} of {revision} cannot be fetched: {error.what}",
            where=root,
            fix="run `dvc pull` with the remote that has it, or rebuild it: git checkout TAG && dvc repro",
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)

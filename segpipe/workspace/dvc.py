"""What stages made in an earlier commit, out of the DVC cache or the DVC remote."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from segpipe.errors import MissingError
from segpipe.release.bundle import copy_bundle


def fetch_bundle(root: Path, revision: str, target: Path) -> None:
    """Write the bundle of a Git revision to `target`, out of the DVC cache or the DVC remote."""
    fetch_out(root, revision, "bundle", target)


def fetch_out(root: Path, revision: str, out: str, target: Path) -> None:
    """Write a folder that a stage made in a Git revision to `target`, out of the DVC cache or the DVC remote."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".{target.name}.fetched")
    shutil.rmtree(staging, ignore_errors=True)
    what = [str(root.resolve()), out, "--rev", revision, "--out", str(staging)]
    command = [sys.executable, "-m", "dvc", "get", *what]
    done = subprocess.run(command, cwd=root, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MissingError(
            f"{out} of {revision} cannot be fetched: {' '.join(done.stderr.split())[-300:]}",
            where=root,
            fix="dvc pull from the remote that has it, or rebuild it: git checkout TAG && dvc repro",
        )
    copy_bundle(staging, target)
    shutil.rmtree(staging)

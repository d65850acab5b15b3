"""Promote a version, where that is to be recorded, approved or triggered in Prefect; `segpipe promote` does the same by hand."""

import os
import sys
from pathlib import Path

from segpipe.config import load_params
from segpipe.release import registry
from segpipe.workspace.prefect_settings import prefect_environment
from segpipe.workspace.root import find_root

if "prefect" not in sys.modules:  # Prefect reads its environment once, when it is imported
    os.environ.update(prefect_environment(Path.cwd(), quiet=True))

from prefect import flow, get_run_logger


@flow(name="promote", persist_result=False)
def promote(version: str, root: str = ".", stage: str | None = None) -> str:
    """Put a version into a stage (by default release.stage of params.yaml); returns what was there before, or ""."""
    folder = find_root(Path(root))
    where = stage or load_params(folder).release.stage
    before = registry.live(folder, where) or ""
    registry.promote(folder, version, where)
    get_run_logger().info(f"{version} is live in {where} (before: {before or 'nothing'})")
    return before

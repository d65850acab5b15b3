"""Promote a version from Prefect, so that it is recorded, approved or triggered there. `segpipe promote` does the same by hand."""

import os
import sys
from pathlib import Path

from segpipe.config import load_params
from segpipe.release import promotion
from segpipe.workspace.prefect_settings import prefect_environment
from segpipe.workspace.root import find_root

if "prefect" not in sys.modules:  # Prefect reads its environment only when it is imported
    os.environ.update(prefect_environment(Path.cwd(), quiet=True))

from prefect import flow, get_run_logger


@flow(name="promote", persist_result=False)
def promote(version: str, root: str = ".", stage: str | None = None, reason: str | None = None) -> str:
    """Make a version live in a stage.

    Args:
        version: such as "v0.2.0".
        root: the workspace, or a folder in it.
        stage: by default release.stage of params.yaml.
        reason: why; kept in the tag.

    Returns:
        The version that was live before, or "".
    """
    folder = find_root(Path(root))
    stage = stage or load_params(folder).release.stage
    before = promotion.live(folder, stage) or ""
    promotion.promote(folder, version, stage, reason)
    get_run_logger().info(f"{version} is live in {stage} (before: {before or 'nothing'})")
    return before

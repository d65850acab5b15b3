"""Verify a version from Prefect, for example on a schedule. `segpipe verify` does the same by hand."""

import os
import sys
from pathlib import Path
from typing import Any

from segpipe.release import verify as checks
from segpipe.workspace.prefect_settings import prefect_environment
from segpipe.workspace.root import find_root

if "prefect" not in sys.modules:  # Prefect reads its environment only when it is imported
    os.environ.update(prefect_environment(Path.cwd(), quiet=True))

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed, Failed, State


@flow(name="verify", persist_result=False)
def verify(version: str, root: str = ".", rebuild: bool = False) -> State[Any]:
    """Check a version's tag, bundle and golden images. The flow fails if something differs.

    Args:
        version: such as "v0.2.0".
        root: the workspace, or a folder in it.
        rebuild: also train the model again, and compare the weights.
    """
    report = checks.verify(find_root(Path(root)), version, rebuild)
    create_markdown_artifact(
        "\n".join(f"- {line}" for line in report.lines()), key="verify", description=f"Checks of {version}"
    )
    message = "; ".join(f"{check.name}: {check.sentence}" for check in report.checks if not check.ok)
    return Completed(message=f"{version} is what was released") if report.ok else Failed(message=message)

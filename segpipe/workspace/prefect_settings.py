"""Environment variables for the Prefect flows of a workspace: offline, with a database inside the workspace."""

from __future__ import annotations

import os
from pathlib import Path

from segpipe.workspace.paths import Paths


def prefect_environment(root: Path, quiet: bool = False) -> dict[str, str]:
    """Return environment variables that make Prefect work offline and keep its database in the workspace.

    They must be set before Prefect is imported. Variables that the user has set are left out. If PREFECT_API_URL or PREFECT_HOME is set,
    the user runs a Prefect server, and that one is used.

    Args:
        root: the workspace.
        quiet: whether Prefect's log lines are kept off the terminal; its log has them in any case.
    """
    settings = {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    }
    if not {"PREFECT_API_URL", "PREFECT_HOME"} & os.environ.keys():
        home = Paths(root.resolve()).state / "prefect"
        home.mkdir(parents=True, exist_ok=True)
        settings |= {"PREFECT_HOME": str(home), "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true"}
    if quiet:
        settings["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    return {name: value for name, value in settings.items() if name not in os.environ}

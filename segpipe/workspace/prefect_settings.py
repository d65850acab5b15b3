"""Environment variables with which the flows of a workspace run: offline, with a Prefect database of its own."""

from __future__ import annotations

import os
from pathlib import Path

from segpipe.workspace.paths import STATE_DIR


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

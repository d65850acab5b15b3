"""`segpipe serve`: the HTTP endpoint."""

from __future__ import annotations

from typing import Annotated

import typer

from segpipe.cli.common import workspace_root
from segpipe.cli.release.options import Stage

EXAMPLE = "segpipe serve --port 3000\ncurl -F image=@X.png localhost:3000/v1/segment -o mask.png"


def serve(
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="By default serve.port of params.yaml.")
    ] = None,
    host: Annotated[
        str | None, typer.Option("--host", help="By default serve.host of params.yaml (this machine only).")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, max=64, help="By default serve.workers of params.yaml.")
    ] = None,
    stage: Stage = None,
) -> None:
    """Serve what is live: a page at /, POST /v1/segment, GET /v1/model. Follows promotions and rollbacks without a restart."""
    import os

    from segpipe.progress import say
    from segpipe.serving.server import server_command

    command, environment, url = server_command(workspace_root(), host, port, stage, workers)
    say(f"serving on {url} (page: /, API: POST /v1/segment, GET /v1/model); Ctrl-C ends it")
    os.execve(command[0], command, environment)  # noqa: S606 - the server takes this process's place, and so its signals

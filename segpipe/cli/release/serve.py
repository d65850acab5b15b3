"""`segpipe serve`: the HTTP endpoint."""

from __future__ import annotations

from typing import Annotated

import typer

from segpipe.cli.common import workspace_root
from segpipe.cli.release.options import Stage

EXAMPLE = "segpipe serve --port 3000\ncurl -F image=@X.png localhost:3000/v1/segment -o mask.png"


def serve(
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="TCP port. Default: serve.port of params.yaml.")
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            "--host",
            help="Address to listen on; 0.0.0.0 accepts requests from other machines. Default: serve.host of params.yaml.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=1, max=64, help="Number of server processes. Default: serve.workers of params.yaml."
        ),
    ] = None,
    stage: Stage = None,
) -> None:
    """Serve the live version over HTTP: a web page at /, POST /v1/segment and GET /v1/model.

    The server follows promotions and rollbacks without a restart. Ctrl-C ends it.
    """
    import os

    from segpipe.progress import say
    from segpipe.serving.server import server_command

    command, environment, url = server_command(workspace_root(), host, port, stage, workers)
    say(f"serving on {url} (page: /, API: POST /v1/segment, GET /v1/model); Ctrl-C ends the server")
    os.execve(command[0], command, environment)  # noqa: S606 - the server replaces this process, so it receives its signals

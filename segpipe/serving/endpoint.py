"""`segpipe serve`: a server that follows what is live in a stage of a workspace."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from segpipe.config import ServeParams, load_params
from segpipe.progress import say
from segpipe.release.bento import bento_path, bentoml_home
from segpipe.release.endpoints import Endpoint
from segpipe.release.registry import publish
from segpipe.release.server import bentoml_command, bentoml_environment
from segpipe.serving.settings import ENDPOINT, MAX_MEGAPIXELS, MAX_UPLOAD_MB, WORKERS

SERVICE = "segpipe.serving.service:SegmenterService"


def endpoint_settings(root: Path, stage: str, params: ServeParams) -> dict[str, str]:
    """The environment variables with which a server follows a stage; MissingError where nothing is promoted to it."""
    return {
        ENDPOINT: str(publish(root.resolve(), stage)),
        WORKERS: str(params.workers),
        MAX_UPLOAD_MB: str(params.max_upload_mb),
        MAX_MEGAPIXELS: str(params.max_megapixels),
    }


def serve_target(root: Path, stage: str) -> str:
    """What to serve: the Bento of the version that is live, or the installed package where that Bento is not here."""
    version = Endpoint.read(publish(root.resolve(), stage)).version
    bento = bento_path(root, version)
    return str(bento) if bento.is_dir() else SERVICE


def serve(
    root: Path, stage: str = "prod", host: str | None = None, port: int | None = None, workers: int | None = None
) -> None:
    """Become the server of a stage; arguments go before params.yaml. Does not return.

    This process is replaced, so that signals reach the server itself: Ctrl-C and SIGTERM let it finish its requests. Promotion
    and rollback are followed without a restart.
    """
    given = {"host": host, "port": port, "workers": workers}
    params = load_params(root).serve
    params = ServeParams.model_validate(
        params.model_dump() | {key: value for key, value in given.items() if value is not None}
    )
    settings, target = endpoint_settings(root, stage, params), serve_target(root, stage)
    home = bentoml_home(root)
    home.mkdir(parents=True, exist_ok=True)
    say(
        f"serving {stage} on http://{params.host}:{params.port} (page: /, API: POST /v1/segment, GET /v1/model); Ctrl-C ends it"
    )
    sys.stdout.flush()
    sys.stderr.flush()
    os.chdir(home)  # away from folders whose names might shadow the service's modules
    command = bentoml_command(target, params.host, params.port)
    os.execve(command[0], command, bentoml_environment(home, settings))  # noqa: S606

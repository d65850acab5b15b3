"""How a server that follows what is live in a stage of a workspace is started."""

from __future__ import annotations

from pathlib import Path

from segpipe.config import ServeParams, load_params
from segpipe.release.bento import bento_path, bentoml_home
from segpipe.release.bento_server import bentoml_command, bentoml_environment
from segpipe.release.endpoint_file import Endpoint
from segpipe.release.registry import update_endpoint
from segpipe.serving.settings import ENDPOINT, MAX_MEGAPIXELS, MAX_UPLOAD_MB, WORKERS

SERVICE = "segpipe.serving.service:SegmenterService"


def endpoint_settings(root: Path, stage: str, params: ServeParams) -> dict[str, str]:
    """The environment variables with which a server follows a stage; MissingError where nothing is promoted to it."""
    return {
        ENDPOINT: str(update_endpoint(root.resolve(), stage)),
        WORKERS: str(params.workers),
        MAX_UPLOAD_MB: str(params.max_upload_mb),
        MAX_MEGAPIXELS: str(params.max_megapixels),
    }


def serve_target(root: Path, stage: str) -> str:
    """What to serve: the Bento of the version that is live, or the installed package where that Bento is not here."""
    version = Endpoint.read(update_endpoint(root.resolve(), stage)).version
    bento = bento_path(root, version)
    return str(bento) if bento.is_dir() else SERVICE


def server_command(
    root: Path,
    host: str | None = None,
    port: int | None = None,
    stage: str | None = None,
    workers: int | None = None,
) -> tuple[list[str], dict[str, str], str]:
    """Command, environment and address of the server of a stage; what is not given is taken from params.yaml.

    Made for `os.execve`: signals reach the server itself then, and Ctrl-C or SIGTERM let it finish its requests. The server
    follows promotions and rollbacks without a restart. Raises MissingError where nothing is promoted.
    """
    params = load_params(root)
    given = {"host": host, "port": port, "workers": workers}
    chosen = params.serve.model_copy(update={key: value for key, value in given.items() if value is not None})
    where = stage or params.release.stage
    home = bentoml_home(root)
    home.mkdir(parents=True, exist_ok=True)
    command = bentoml_command(serve_target(root, where), chosen.host, chosen.port)
    environment = bentoml_environment(home, endpoint_settings(root, where, chosen))
    return command, environment, f"http://{chosen.host}:{chosen.port}"

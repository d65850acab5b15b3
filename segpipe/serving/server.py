"""The command that starts a server for a stage of a workspace."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

from segpipe.config import ServeParams, load_params
from segpipe.errors import ConfigError
from segpipe.release.endpoint_file import Endpoint
from segpipe.release.packaging.bento import bento_path, bentoml_home
from segpipe.release.packaging.bento_server import bentoml_command, bentoml_environment
from segpipe.release.promotion import update_endpoint
from segpipe.serving.settings import ENDPOINT, EXAMPLE, MAX_MEGAPIXELS, MAX_UPLOAD_MB, WORKERS

SERVICE = "segpipe.serving.service:SegmenterService"


def endpoint_settings(root: Path, stage: str, params: ServeParams) -> dict[str, str]:
    """Return the environment variables of a server that follows a stage.

    Args:
        root: the workspace.
        stage: such as "prod".
        params: the section `serve` of params.yaml.

    Raises:
        MissingError: nothing is promoted to the stage.
    """
    return {
        ENDPOINT: str(update_endpoint(root.resolve(), stage)),
        WORKERS: str(params.workers),
        MAX_UPLOAD_MB: str(params.max_upload_mb),
        MAX_MEGAPIXELS: str(params.max_megapixels),
        EXAMPLE: str(params.example).lower(),
    }


def serve_target(root: Path, stage: str) -> str:
    """Return what BentoML should serve: the Bento of the live version, or the installed package if that Bento is missing."""
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
    """Return command, environment and address of the server of a stage.

    Run the command with `os.execve`: the server then receives signals itself, and finishes its requests after Ctrl-C or SIGTERM.
    It follows promotions and rollbacks without a restart.

    Args:
        root: the workspace.
        host: address to listen on; this and the following arguments default to params.yaml.
        port: TCP port.
        stage: such as "prod".
        workers: number of worker processes.

    Raises:
        MissingError: nothing is promoted to the stage.
        ConfigError: another process listens on the port, or the address is not one of this machine.
    """
    params = load_params(root)
    overrides = {"host": host, "port": port, "workers": workers}
    settings = params.serve.model_copy(update={key: value for key, value in overrides.items() if value is not None})
    stage = stage or params.release.stage
    check_port(settings.host, settings.port)
    home = bentoml_home(root)
    home.mkdir(parents=True, exist_ok=True)
    command = bentoml_command(serve_target(root, stage), settings.host, settings.port)
    environment = bentoml_environment(home, endpoint_settings(root, stage, settings))
    return command, environment, f"http://{settings.host}:{settings.port}"


def check_port(host: str, port: int) -> None:
    """Check that this process may listen on a port.

    Args:
        host: the address, as the user gave it.
        port: the TCP port.

    Raises:
        ConfigError: another process listens on it, the address is not one of this machine, or the user may not listen on the port.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        where = f"{host}:{port}"
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                "another process listens on this port", where=where, fix="end it, or choose another port: --port 3001"
            ) from error
        raise ConfigError(
            f"cannot listen on this address: {error.strerror}",
            where=where,
            fix="choose an address of this machine (--host 127.0.0.1) and a port above 1023 (--port 3000)",
        ) from error

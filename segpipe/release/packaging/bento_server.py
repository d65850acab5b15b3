"""Run a BentoML server as a child process for the duration of a `with` block."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from segpipe.errors import SegpipeError
from segpipe.processes import stop_tree

_POLL_S = 0.1


@dataclass(frozen=True)
class Server:
    """A running server that is ready for requests."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]
    startup_s: float
    """Seconds from the start of the process to the first successful answer of /readyz."""

    def memory_mb(self) -> float:
        """Return the memory in MiB that the processes of the server use."""
        import psutil

        tree = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        total = 0
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total / 2**20

    def log_tail(self, characters: int = 1500) -> str:
        """Return the end of the server's log."""
        return self.log.read_bytes()[-characters:].decode(errors="replace").strip()


def bentoml_command(target: str | Path, host: str, port: int, python: Path | None = None) -> list[str]:
    """Return the command that serves a target.

    Args:
        target: the folder of a Bento, or the import path of a service.
        host: the address to listen on.
        port: the port to listen on.
        python: the interpreter to use; None for the one of this process.
    """
    return [str(python or sys.executable), "-m", "bentoml", "serve", str(target), "--host", host, "--port", str(port)]


def bentoml_environment(home: Path, settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a BentoML process: that of this process, without segpipe's own variables.

    Args:
        home: BENTOML_HOME, unless the user has set it.
        settings: variables to add, such as those of `segpipe.serving.settings`.
    """
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("SEGPIPE_")}
    fixed = {"BENTOML_DO_NOT_TRACK": "True", "PYTHONUNBUFFERED": "1"}
    fixed["PYTHONSAFEPATH"] = "1"  # the current folder may have a data/ or models/, which must not be imported
    return {"BENTOML_HOME": str(home), **inherited, **fixed, **(settings or {})}


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port on which no process listens at the moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def start_server(
    target: str | Path,
    settings: Mapping[str, str] | None = None,
    deadline_s: float = 120.0,
    python: Path | None = None,
) -> Iterator[Server]:
    """Serve a Bento or a service on a free loopback port, and end all processes of the server when the block ends.

    The server has a temporary BENTOML_HOME: in a shared one, it would delete the metrics of a server that is running there.

    Args:
        target: the folder of a Bento, or the import path of a service.
        settings: environment variables of `segpipe.serving.settings`.
        deadline_s: seconds within which the server must be ready.
        python: the interpreter to use; None for the one of this process.

    Yields:
        The server, once it is ready.

    Raises:
        SegpipeError: the server ended early or was not ready in time; the message has the end of its log.
    """
    host, port = "127.0.0.1", free_port()
    with tempfile.TemporaryDirectory(prefix="segpipe-serve-") as folder:
        log, home = Path(folder) / "server.log", Path(folder) / "bentoml"
        home.mkdir()
        environment = bentoml_environment(home, settings) | {"BENTOML_HOME": str(home)}
        if python is not None:
            environment.pop("PYTHONPATH", None)
        start = time.monotonic()
        with log.open("wb") as sink:
            process = subprocess.Popen(
                bentoml_command(target, host, port, python),
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            url = f"http://{host}:{port}"
            _wait_until_ready(process, url, log, deadline_s)
            yield Server(url, log, process, time.monotonic() - start)
        finally:
            stop_tree(process)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path, deadline_s: float) -> None:
    import httpx

    end = time.monotonic() + deadline_s
    with httpx.Client(trust_env=False, timeout=2.0) as client:
        while process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(httpx.TransportError):
                if client.get(f"{url}/readyz").status_code == 200:
                    return
            time.sleep(_POLL_S)
    tail = " ".join(log.read_bytes()[-1500:].decode(errors="replace").split())
    reason = (
        f"ended with exit code {process.returncode}"
        if process.poll() is not None
        else f"was not ready after {deadline_s:g} s"
    )
    raise SegpipeError(f"the server {reason}; the end of its log: {tail}")

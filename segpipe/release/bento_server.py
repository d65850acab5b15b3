"""A BentoML server as a child process, for as long as a `with` block lasts."""

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
    """A server that answers."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]
    startup_s: float
    """From the start of the process to the first good answer of /readyz."""

    def log_tail(self, characters: int = 1500) -> str:
        """The end of what the server wrote."""
        return self.log.read_bytes()[-characters:].decode(errors="replace").strip()


def bentoml_command(target: str | Path, host: str, port: int) -> list[str]:
    """The command that serves a Bento (its folder) or a service (its import path)."""
    return [sys.executable, "-m", "bentoml", "serve", str(target), "--host", host, "--port", str(port)]


def bentoml_environment(home: Path, settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment for a server: `home` is its BENTOML_HOME unless the user chose one; of segpipe's own variables
    only those in `settings`.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SEGPIPE_")}
    fixed = {"BENTOML_DO_NOT_TRACK": "True", "PYTHONUNBUFFERED": "1"}
    fixed["PYTHONSAFEPATH"] = "1"  # the current folder may hold a data/ or models/, which are no modules
    return {"BENTOML_HOME": str(home), **kept, **fixed, **(settings or {})}


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nothing listens on right now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def start_server(
    target: str | Path, home: Path, settings: Mapping[str, str] | None = None, deadline_s: float = 120.0
) -> Iterator[Server]:
    """Serve a Bento or a service on a free loopback port; yields once it is ready, and leaves no process behind.

    home: BENTOML_HOME. settings: environment variables of segpipe.serving.settings. Raises SegpipeError, with the end of the
    server's log, when it ends early or is not ready in time.
    """
    host, port = "127.0.0.1", free_port()
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="segpipe-serve-") as folder:
        log = Path(folder) / "server.log"
        started = time.monotonic()
        with log.open("wb") as sink:
            process = subprocess.Popen(
                bentoml_command(target, host, port),
                env=bentoml_environment(home, settings),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            url = f"http://{host}:{port}"
            _wait_until_ready(process, url, log, deadline_s)
            yield Server(url, log, process, time.monotonic() - started)
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
    why = (
        f"ended with code {process.returncode}"
        if process.poll() is not None
        else f"was not ready after {deadline_s:g} s"
    )
    raise SegpipeError(f"the server {why}; the end of its log: {tail}")

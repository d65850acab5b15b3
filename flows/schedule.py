"""Retrain on a schedule on one machine (`segpipe schedule`). For workers on other machines, deploy prefect.yaml instead."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from segpipe.errors import ConfigError, SegpipeError
from segpipe.processes import GRACE_S, end_group
from segpipe.progress import say
from segpipe.release.packaging.bento_server import free_port
from segpipe.signals import interrupt_on_termination
from segpipe.workspace.paths import Paths
from segpipe.workspace.prefect_settings import prefect_environment

DEPLOYMENT = "scheduled"
_STARTUP_S = 120.0


def next_run(cron: str, timezone: str) -> datetime:
    """Return the next time of a cron expression; ConfigError if the expression or the time zone is not valid."""
    from prefect.server.schemas.schedules import CronSchedule

    try:
        ZoneInfo(timezone)
        schedule = CronSchedule(cron=cron, timezone=timezone)
        dates = asyncio.run(schedule.get_dates(1, start=datetime.now(UTC)))
    except (ValueError, KeyError, OSError) as error:
        raise ConfigError(
            "not a schedule",
            found=f"{cron!r} in {timezone!r}",
            expected="a cron expression (minute hour day month weekday) and a time zone",
            fix='for example --cron "0 2 * * 1" --timezone Europe/Berlin',
        ) from error
    return dates[0]


def serve(root: Path, cron: str, timezone: str = "UTC") -> None:
    """Serve the retrain flow until this process is stopped, with a Prefect server of its own if the user does not run one.

    Prefect's runner is a child process. If it is asked to end, it waits for the run that it has started; here, that run is ended
    too.

    Args:
        root: the workspace.
        cron: a cron expression.
        timezone: its time zone, such as "Europe/Berlin".

    Raises:
        ConfigError: the schedule is not valid.
        SegpipeError: the Prefect server does not start, or the runner ended.
    """
    first_run = next_run(cron, timezone)
    with interrupt_on_termination(), _api(root) as api:
        command = [sys.executable, str(Paths(root).flow("schedule")), str(root), cron, timezone]
        environment = os.environ | prefect_environment(root) | {"PREFECT_API_URL": api}
        runner = subprocess.Popen(
            command, cwd=root, env=environment, stdin=subprocess.DEVNULL, text=True, start_new_session=True
        )
        try:
            say(
                f"next run: {first_run:%A %Y-%m-%d %H:%M %Z} (runs and logs: {api.removesuffix('/api')}). "
                "Ctrl-C ends the schedule."
            )
            code = runner.wait()
        finally:
            _end(runner)
    raise SegpipeError(f"Prefect's runner ended unexpectedly, with exit code {code}", fix="see its output above")


def _end(runner: subprocess.Popen[str]) -> None:
    """End the runner, and the runs that it has started; these get time to end their stages."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(runner.pid).children(recursive=True)
        runner.kill()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.terminate()
        _, alive = psutil.wait_procs(children, timeout=2 * GRACE_S)
        for child in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    runner.wait()


def _api(root: Path) -> contextlib.AbstractContextManager[str]:
    """Yield the address of the user's Prefect API, or of one that runs for the duration of the block.

    The latter has a home of its own, because a `segpipe run` at the same time starts a server that must not share its database.
    """
    from prefect.settings import PREFECT_API_URL

    if url := PREFECT_API_URL.value():
        return contextlib.nullcontext(url)
    return prefect_server(Paths(root.resolve()).state / "prefect-schedule")


@contextlib.contextmanager
def prefect_server(home: Path) -> Iterator[str]:
    """Run a Prefect server on a free loopback port, with its database in `home`, and yield the address of its API once it is ready."""
    home.mkdir(parents=True, exist_ok=True)
    log, port = home / "server.log", free_port()
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"PREFECT_HOME": str(home)}
    with log.open("w") as sink:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            text=True,
            start_new_session=True,
        )
    try:
        _wait_until_ready(process, f"http://127.0.0.1:{port}", log)
        yield f"http://127.0.0.1:{port}/api"
    finally:
        end_group(process)


def _wait_until_ready(process: subprocess.Popen[str], url: str, log: Path) -> None:
    import httpx

    deadline = time.monotonic() + _STARTUP_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/api/health", trust_env=False).status_code == 200:
                return
        time.sleep(0.2)
    raise SegpipeError(
        "the Prefect server did not start", where=log, fix="read this log, or set PREFECT_API_URL to a running server"
    )


def main(root: str, cron: str, timezone: str) -> None:
    """Run Prefect's runner. `serve` starts this as a process of its own, with PREFECT_API_URL set."""
    from prefect.schedules import Cron
    from retrain import retrain  # type: ignore[import-not-found]  # the file next to this one; runs import it by this name too

    retrain.serve(
        name=DEPLOYMENT,
        schedule=Cron(cron, timezone=timezone),
        parameters={"root": root},
        print_starting_message=False,
        limit=1,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

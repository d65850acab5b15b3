"""Commands about what is live: promote, rollback, serve, schedule, verify."""

from __future__ import annotations

from typing import Annotated

import typer

from segpipe.cli.common import Json, add, print_json, workspace_root

PANEL = "Release"

Version = Annotated[
    str, typer.Argument(metavar="VERSION", help="A version, such as v0.2.0 (`segpipe models` lists them).")
]
Stage = Annotated[str | None, typer.Option("--stage", help="By default release.stage of params.yaml.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    add(app, PANEL, "promote", promote, "segpipe promote v0.2.0 --stage prod")
    add(app, PANEL, "rollback", rollback, "segpipe rollback --stage prod")
    add(
        app,
        PANEL,
        "serve",
        serve,
        "segpipe serve --port 3000\ncurl -F image=@X.png localhost:3000/v1/segment -o mask.png",
    )
    add(app, PANEL, "schedule", schedule, 'segpipe schedule --cron "0 2 * * 1"')
    add(app, PANEL, "verify", verify, "segpipe verify v0.2.0\nsegpipe verify v0.2.0 --rebuild")


def promote(version: Version, stage: Stage = None, json: Json = False) -> None:
    """Make a version live. Running endpoints change to it by themselves; nothing is restarted."""
    from segpipe.config import load_params
    from segpipe.progress import say
    from segpipe.release import registry

    root = workspace_root()
    where = stage or load_params(root).release.stage
    before = registry.live(root, where)
    registry.promote(root, version, where)
    say(f"{version} is live in {where}" + (f" (before: {before})" if before else ""))
    if json:
        print_json({"stage": where, "live": version, "before": before})


def rollback(stage: Stage = None, json: Json = False) -> None:
    """Bring back the version that was live before. Running endpoints change to it by themselves."""
    from segpipe.config import load_params
    from segpipe.progress import say
    from segpipe.release import registry

    root = workspace_root()
    where = stage or load_params(root).release.stage
    before = registry.live(root, where)
    now = registry.rollback(root, where)
    say(f"{now} is live in {where} again (before: {before})")
    if json:
        print_json({"stage": where, "live": now, "before": before})


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


def schedule(
    cron: Annotated[str, typer.Option("--cron", help="Minute, hour, day, month, weekday.")],
    timezone: Annotated[
        str, typer.Option("--timezone", help="In which the expression is meant, such as Europe/Berlin.")
    ] = "UTC",
) -> None:
    """Retrain on a schedule, for as long as this command runs. (A deployment for workers: prefect deploy --all.)"""
    from segpipe.workspace.flow_loader import load_flow

    root = workspace_root()
    load_flow(root, "schedule", quiet=False).serve(root, cron, timezone)


def verify(
    version: Version,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Also train it anew at its tag, and compare the weights.")
    ] = False,
    json: Json = False,
) -> None:
    """Check a version again: its tag, its bundle, its golden images. Exit code 4 when something differs."""
    from segpipe.errors import GateBlocked
    from segpipe.release.verify import verify as look

    report = look(workspace_root(), version, rebuild)
    if json:
        print_json(report.model_dump(mode="json") | {"ok": report.ok})
    else:
        for line in report.lines():
            typer.echo(line)
    if not report.ok:
        differing = ", ".join(check.name for check in report.checks if not check.ok)
        raise GateBlocked(f"{version} is not what was released: {differing}", fix="segpipe models lists the others")

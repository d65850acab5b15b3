"""`segpipe verify`: is a version still what was released?"""

from __future__ import annotations

from typing import Annotated

import typer

from segpipe.cli.common import Json, print_json, workspace_root
from segpipe.cli.release.options import Version

EXAMPLE = "segpipe verify v0.2.0\nsegpipe verify v0.2.0 --rebuild"


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

"""`segpipe verify`: check that a version is still what was released."""

from __future__ import annotations

from typing import Annotated

import typer

from segpipe.cli.common import Json, print_json, workspace_root
from segpipe.cli.release.options import Version

EXAMPLE = "segpipe verify v0.2.0\nsegpipe verify v0.2.0 --rebuild"


def verify(
    version: Version,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Also train the model again at its tag, and compare the weights.")
    ] = False,
    json: Json = False,
) -> None:
    """Check that the tag, the bundle and the golden images of a version are still what was released.

    Exit codes:
    - 0: nothing differs
    - 4: something differs
    - 6: there is no such version
    """
    from segpipe.errors import GateBlocked
    from segpipe.release.verify import verify as verify_version

    report = verify_version(workspace_root(), version, rebuild)
    if json:
        print_json(report.model_dump(mode="json") | {"ok": report.ok})
    else:
        for line in report.lines():
            typer.echo(line)
    if not report.ok:
        failed = ", ".join(check.name for check in report.checks if not check.ok)
        raise GateBlocked(
            f"{version} is not what was released: {failed}", fix="segpipe models lists the other versions"
        )

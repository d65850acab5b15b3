"""Options and arguments that commands about releases share."""

from __future__ import annotations

from typing import Annotated

import typer

Version = Annotated[
    str, typer.Argument(metavar="VERSION", help="A released version, such as v0.2.0 (`segpipe models` lists them).")
]
Reason = Annotated[
    str | None,
    typer.Option("--reason", help="Why, for `segpipe models --history`; kept in the Git tag with your name."),
]
Stage = Annotated[
    str | None,
    typer.Option("--stage", help="The stage, such as prod or staging. Default: release.stage of params.yaml."),
]

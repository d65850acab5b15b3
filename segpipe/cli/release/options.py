"""Options that commands about releases share."""

from __future__ import annotations

from typing import Annotated

import typer

Version = Annotated[
    str, typer.Argument(metavar="VERSION", help="A version, such as v0.2.0 (`segpipe models` lists them).")
]
Stage = Annotated[str | None, typer.Option("--stage", help="By default release.stage of params.yaml.")]

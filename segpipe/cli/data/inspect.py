"""`segpipe data inspect`: show how a source can be read, without importing it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segpipe.cli.common import Json, print_json
from segpipe.cli.data.import_options import (
    SourceOptions,
    import_options,
    with_source_options,
)

if TYPE_CHECKING:
    from segpipe.config import DataParams
    from segpipe.data.imports.inspection import Inspection

EXAMPLE = "segpipe data inspect ../cells\nsegpipe data inspect ../cells --sheet cells.png --json"


@with_source_options
def data_inspect(
    source: Annotated[Path, typer.Argument(help="Folder with labelled images.", metavar="SRC", exists=True)],
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet", help="File for the contact sheet (PNG). Default: SRC-readings.png here.", metavar="FILE"
        ),
    ] = None,
    *,
    source_options: SourceOptions,
    json: Json = False,
) -> None:
    """Show how a source can be read, with the evidence and the command for each reading. Nothing is imported.

    A contact sheet shows some images with the labels that each reading gives.
    """
    from segpipe.data.imports.inspection import inspect_source

    options = import_options(f"segpipe data import {shlex.quote(str(source))}", source_options)
    path = sheet or Path(f"{source.resolve().name}-readings.png")
    inspection = inspect_source(source.resolve(), source_options.format, options, path, _limits())
    if json:
        print_json(inspection.model_dump(mode="json"))
        return
    _print(inspection)


def _limits() -> DataParams:
    """Return the limits of the workspace that the current folder is in; the default ones elsewhere."""
    from segpipe.config import DataParams, load_params
    from segpipe.errors import ConfigError
    from segpipe.workspace.root import find_root

    try:
        root = find_root(Path.cwd())
    except ConfigError:
        return DataParams()
    return load_params(root).data


def _print(inspection: Inspection) -> None:
    for number, shown in enumerate(inspection.readings, start=1):
        marker = " (an import uses this reading)" if number - 1 == inspection.taken else ""
        first, *lines = shown.reading.lines()
        typer.echo("\n".join([f"[{number}] {first}{marker}", *(f"    {line.strip()}" for line in lines)]))
        typer.echo(f"    {shown.command}")
    if inspection.taken is None:
        typer.echo("An import would ask which reading is right.")
    if inspection.error:
        typer.echo(f"An import would fail: {inspection.error}")
    for group in inspection.unused or []:
        typer.echo(group.line())
    for other in inspection.others:
        typer.echo(f"would fit too: {other.layout}, because of {other.reason}: {other.command}")
    typer.echo(f"contact sheet: {inspection.sheet}")

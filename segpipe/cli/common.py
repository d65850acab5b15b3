"""Options, arguments and output functions that several commands share."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Open = Annotated[bool, typer.Option("--open", help="Open the page in the browser.")]
Candidate = Annotated[str, typer.Argument(help="Name of a candidate in params.yaml.", metavar="CANDIDATE")]


_WIDTH_WITHOUT_TERMINAL = 160
"""Largest width of a table that is piped or written to a file, in characters."""


def workspace_root() -> Path:
    """Return the workspace that contains the current folder."""
    from segpipe.workspace.root import find_root

    return find_root(Path.cwd())


def print_json(content: Any) -> None:
    """Print a result as JSON on stdout."""
    json.dump(content, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    sys.stdout.write("\n")


def print_table(columns: list[str], rows: list[list[str]], title: str | None = None) -> None:
    """Print a result as a table on stdout. Long cells are wrapped; without a terminal, lines may be longer than 80 characters."""
    from rich import box
    from rich.console import Console
    from rich.table import Column, Table

    headers = (Column(name, overflow="fold") for name in columns)  # by default, long words are cut off
    table = Table(*headers, title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        options = console.options.update(max_width=_WIDTH_WITHOUT_TERMINAL)
        console.width = max(console.width, console.measure(table, options=options).maximum)
    console.print(table)

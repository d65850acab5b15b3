"""What several commands share: options, the workspace, printing of results."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for a program.")]
Candidate = Annotated[str, typer.Argument(help="A candidate of params.yaml.", metavar="CANDIDATE")]


def workspace_root() -> Path:
    """The workspace that the user stands in."""
    from segpipe.workspace.root import find_root

    return find_root(Path.cwd())


def print_json(content: Any) -> None:
    """A result for a program: JSON on stdout."""
    json.dump(content, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    sys.stdout.write("\n")


def print_table(columns: list[str], rows: list[list[str]], title: str | None = None) -> None:
    """A result for a person: a table on stdout."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console().print(table)

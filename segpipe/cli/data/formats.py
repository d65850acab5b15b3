"""`segpipe data formats`: list the layouts that can be imported."""

from __future__ import annotations

from segpipe.cli.common import Json, print_json, print_table

EXAMPLE = "segpipe data formats\nsegpipe data formats --json"


def data_formats(json: Json = False) -> None:
    """List the layouts that can be imported, the files that identify each, and the options that each uses."""
    if json:
        from segpipe.data.formats.registry import FORMATS

        print_json([{"name": f.name, "summary": f.summary, "options": list(f.options)} for f in FORMATS.values()])
        return
    print_formats()


def print_formats() -> None:
    """Print the table of layouts."""
    from segpipe.data.formats.registry import FORMATS

    rows = [
        [f.name, f.summary, " ".join(f"--{option.replace('_', '-')}" for option in f.options)] for f in FORMATS.values()
    ]
    print_table(["--format", "files in SRC", "options"], rows)

"""`segpipe doctor`: checks of this machine and workspace."""

from __future__ import annotations

from pathlib import Path

from segpipe.cli.common import Json, print_json, print_table
from segpipe.words import counted

EXAMPLE = "segpipe doctor\nsegpipe -C my-cells doctor --json"


def doctor(json: Json = False) -> None:
    """Look at this machine and workspace: versions, devices, disk, remotes, what will be slow; each with the fix."""
    from dataclasses import asdict

    from segpipe.doctor import examine
    from segpipe.errors import ConfigError, MissingError
    from segpipe.workspace.root import find_root

    try:
        root = find_root(Path.cwd())
    except ConfigError:  # outside a workspace the machine alone is looked at
        root = None
    checks = examine(root)
    if json:
        print_json([asdict(check) for check in checks])
    else:
        shown = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "fail": "[red]fail[/]"}
        print_table(
            ["", "", "found", "fix"],
            [[shown[c.verdict], c.name, c.found, c.fix or ""] for c in checks],
            title="segpipe doctor",
        )
    if failed := [check.name for check in checks if check.verdict == "fail"]:
        raise MissingError(f"{counted(len(failed), 'check')} failed: {', '.join(failed)}", fix="see the list above")

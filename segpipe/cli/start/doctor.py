"""`segpipe doctor`: check this machine and workspace."""

from __future__ import annotations

from pathlib import Path

from segpipe.cli.common import Json, print_json, print_table
from segpipe.words import counted

EXAMPLE = "segpipe doctor\nsegpipe -C my-cells doctor --json"


def doctor(json: Json = False) -> None:
    """Check this machine and workspace: versions, devices, disk, remotes, and what will be slow. Each problem comes with its fix.

    Exit codes:
    - 0: no check failed; there may be warnings
    - 6: a check failed
    """
    from dataclasses import asdict

    from segpipe.doctor import examine
    from segpipe.errors import ConfigError, MissingError
    from segpipe.workspace.root import find_root

    try:
        root = find_root(Path.cwd())
    except ConfigError:  # outside a workspace, only the machine is checked
        root = None
    checks = examine(root)
    if json:
        print_json([asdict(check) for check in checks])
    else:
        labels = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "fail": "[red]fail[/]"}
        print_table(
            ["", "", "found", "fix"],
            [[labels[c.verdict], c.name, c.found, c.fix or ""] for c in checks],
            title="segpipe doctor",
        )
    if failed := [check.name for check in checks if check.verdict == "fail"]:
        raise MissingError(f"{counted(len(failed), 'check')} failed: {', '.join(failed)}", fix="see the list above")

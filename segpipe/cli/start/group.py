"""Commands to begin with: a workspace, its data, what can be trained, what this machine is good for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segpipe.cli.common import Json, add, print_json, print_table
from segpipe.cli.data.importing import Classes, DataFormat, Group, Ignore, Overlapping, import_data, import_options

PANEL = "Start"


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    add(app, PANEL, "init", init, "segpipe init my-cells --data ../images --format folder")
    add(app, PANEL, "demo", demo, "segpipe demo && cd demo && segpipe report --open")
    add(app, PANEL, "families", families, "segpipe families\nsegpipe families --json")
    add(app, PANEL, "doctor", doctor, "segpipe doctor\nsegpipe -C my-cells doctor --json")


def init(
    directory: Annotated[Path, typer.Argument(help="The folder that becomes a workspace.", metavar="DIR")],
    data: Annotated[Path | None, typer.Option("--data", help="Labelled images to bring in.", metavar="SRC")] = None,
    format: DataFormat = "auto",
    classes: Classes = None,
    ignore: Ignore = None,
    group: Group = None,
    overlapping: Overlapping = False,
) -> None:
    """Make a workspace: Git and DVC repository, pipeline, parameters, flows; with --data, your images in it.

    `segpipe data import` has further options for images that lie in other ways.
    """
    from segpipe.progress import say
    from segpipe.workspace import create
    from segpipe.workspace.git import commit_staged

    if data is not None and not data.exists():
        raise typer.BadParameter(f"{data} does not exist", param_hint="--data")
    fresh = create.create(directory)
    root = directory.resolve()
    if data is not None:
        with create.lock(root):
            read = {"overlapping": overlapping or None}
            import_data(root, data.resolve(), format, import_options(classes, ignore, group, read=read))
            commit_staged(root, "Labelled images")
    say(
        f"{directory} is {'now a' if fresh else 'already a'} workspace. Next: cd {directory} && "
        + ("segpipe run" if (root / "data").is_dir() else "segpipe data import SRC")
    )


def demo(
    directory: Annotated[Path, typer.Argument(help="Where the demo's workspace is made.", metavar="DIR")] = Path(
        "demo"
    ),
) -> None:
    """See it all once: demo data, training, gates, release, a running endpoint that answers. Does no work twice."""
    from segpipe.cli.start.demo import tour

    tour(directory)


def families(json: Json = False) -> None:
    """What can be a candidate in params.yaml, with one line each."""
    from segpipe.models.registry import FAMILIES

    if json:
        facts = ("name", "kind", "task", "summary", "paper")
        rows = [
            {key: getattr(f, key) for key in facts} | {"settings": f.config.model_json_schema()["properties"]}
            for f in FAMILIES.values()
        ]
        print_json(rows)
        return
    print_table(
        ["family", "kind", "task", "what it is, when to choose it", "source"],
        [[f.name, f.kind, f.task, f.summary, f.paper] for f in FAMILIES.values()],
    )


def doctor(json: Json = False) -> None:
    """Look at this machine and workspace: versions, devices, disk, remotes, what will be slow; each with the fix."""
    from dataclasses import asdict

    from segpipe.doctor import examine
    from segpipe.errors import ConfigError, MissingError
    from segpipe.workspace.create import find_root

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
        raise MissingError(f"{len(failed)} check(s) failed: {', '.join(failed)}", fix="see the list above")

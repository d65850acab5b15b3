"""`segpipe init`: a workspace, with data where asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segpipe.cli.data.import_ import Classes, DataFormat, Group, Ignore, Overlapping, import_data, import_options

EXAMPLE = "segpipe init my-cells --data ../images --format folder"


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
    from segpipe.workspace.create import create_workspace
    from segpipe.workspace.git import commit_staged
    from segpipe.workspace.lock import lock

    if data is not None and not data.exists():
        raise typer.BadParameter(f"{data} does not exist", param_hint="--data")
    fresh = create_workspace(directory)
    root = directory.resolve()
    if data is not None:
        with lock(root):
            read = {"overlapping": overlapping or None}
            import_data(root, data.resolve(), format, import_options(classes, ignore, group, read=read))
            commit_staged(root, "Labelled images")
    say(
        f"{directory} is {'now a' if fresh else 'already a'} workspace. Next: cd {directory} && "
        + ("segpipe run" if (root / "data").is_dir() else "segpipe data import SRC")
    )

"""`segpipe init`: create a workspace, on request with data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segpipe.cli.data.import_ import Classes, DataFormat, Group, Ignore, Overlapping, import_data, import_options

EXAMPLE = "segpipe init my-cells --data ../images --format folder"


def init(
    directory: Annotated[Path, typer.Argument(help="The folder of the new workspace.", metavar="DIR")],
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder with labelled images to import.", metavar="SRC")
    ] = None,
    format: DataFormat = "auto",
    classes: Classes = None,
    ignore: Ignore = None,
    group: Group = None,
    overlapping: Overlapping = False,
) -> None:
    """Create a workspace: Git and DVC repository, pipeline, parameters and flows. With --data, import your images into it.

    `segpipe data import` has further options, for images in other layouts.
    """
    from segpipe.progress import say
    from segpipe.workspace.create import create_workspace
    from segpipe.workspace.git import commit_staged
    from segpipe.workspace.lock import lock
    from segpipe.workspace.paths import Paths

    if data is not None and not data.exists():
        raise typer.BadParameter(f"{data} does not exist", param_hint="--data")
    created = create_workspace(directory)
    root = directory.resolve()
    if data is not None:
        with lock(root):
            layout = {"overlapping": overlapping or None}
            import_data(root, data.resolve(), format, import_options(classes, ignore, group, read=layout))
            commit_staged(root, "Labelled images")
    say(
        f"{directory} is {'now' if created else 'already'} a workspace. Next: cd {directory} && "
        + ("segpipe run" if Paths(root).data.is_dir() else "segpipe data import SRC")
    )

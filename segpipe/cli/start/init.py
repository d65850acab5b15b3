"""`segpipe init`: create a workspace, on request with data."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from segpipe.cli.data.import_ import import_data
from segpipe.cli.data.import_options import (
    Classes,
    DataFormat,
    Exif,
    Group,
    Ignore,
    Images,
    Kind,
    Masks,
    Overlapping,
    Palette,
    Suffix,
    Table,
    Threshold,
    Tolerance,
    UnknownColours,
    Unlabelled,
    Yes,
    import_options,
)

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
    images: Images = None,
    masks: Masks = None,
    suffix: Suffix = None,
    palette: Palette = None,
    tolerance: Tolerance = None,
    unknown_colours: UnknownColours = None,
    kind: Kind = None,
    threshold: Threshold = None,
    exif: Exif = None,
    unlabelled: Unlabelled = "omit",
    overlapping: Overlapping = False,
    table: Table = None,
    yes: Yes = False,
) -> None:
    """Create a workspace: Git and DVC repository, pipeline, parameters and flows. With --data, import your images into it.

    If the images can be read in several ways, the error shows each reading with the command that chooses it.
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
        layout: dict[str, Any] = {
            "images": images,
            "masks": masks,
            "suffix": suffix,
            "palette": palette,
            "tolerance": tolerance,
            "unknown_colours": unknown_colours,
            "kind": kind,
            "threshold": threshold,
            "exif": exif,
            "overlapping": overlapping or None,
        }
        command = shlex.join(["segpipe", "init", str(directory), "--data", str(data)])
        further = {"table": table, "unlabelled": unlabelled, "yes": yes}
        options = import_options(command, classes, ignore, group, layout, **further)
        with lock(root):
            import_data(root, data.resolve(), format, options)
            commit_staged(root, "Labelled images")
    say(
        f"{directory} is {'now' if created else 'already'} a workspace. Next: cd {directory} && "
        + ("segpipe run" if Paths(root).data.is_dir() else "segpipe data import SRC")
    )

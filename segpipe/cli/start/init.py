"""`segpipe init`: create a workspace, on request with data."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from segpipe.cli.data.import_ import import_data
from segpipe.cli.data.import_options import (
    SourceOptions,
    Table,
    Yes,
    import_options,
    with_source_options,
)

EXAMPLE = "segpipe init my-cells --data ../images --format folder"


@with_source_options
def init(
    directory: Annotated[Path, typer.Argument(help="The folder of the new workspace.", metavar="DIR")],
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder with labelled images to import.", metavar="SRC")
    ] = None,
    *,
    source_options: SourceOptions,
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
        _check_no_data(root, data.resolve())
        command = shlex.join(["segpipe", "init", str(directory), "--data", str(data)])
        options = import_options(command, source_options, table=table, yes=yes)
        with lock(root):
            import_data(root, data.resolve(), source_options.format, options)
            commit_staged(root, "Labelled images")
    say(
        f"{directory} is {'now' if created else 'already'} a workspace. Next: cd {directory} && "
        + ("segpipe run" if Paths(root).data.is_dir() else "segpipe data import SRC")
    )


def _check_no_data(root: Path, source: Path) -> None:
    """Refuse to import into a workspace that has data: `init` replaces nothing.

    Raises:
        DataError: data/ holds files.
    """
    from segpipe.errors import DataError
    from segpipe.workspace.paths import Paths

    folder = Paths(root).data
    if folder.is_dir() and any(folder.iterdir()):
        replacing = shlex.join(["segpipe", "-C", str(root), "data", "import", str(source), "--replace"])
        raise DataError(
            "holds data already", where=folder, fix=f"create another workspace, or replace the data: {replacing}"
        )

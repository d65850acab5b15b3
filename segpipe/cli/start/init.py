"""`segpipe init`: create a workspace, on request with data."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
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
    root = directory.resolve()
    command = shlex.join(["segpipe", "init", str(directory), *(["--data", str(data)] if data else [])])
    options = import_options(command, source_options, table=table, yes=yes)
    if data is not None:
        _check_source(root, data.resolve(), source_options.format)
    with _removed_after_errors(root):
        created = create_workspace(directory)
        if data is not None:
            _check_no_data(root, data.resolve())
            with lock(root):
                import_data(root, data.resolve(), source_options.format, options)
                commit_staged(root, "Labelled images")
    say(
        f"{directory} is {'now' if created else 'already'} a workspace. Next: cd {directory} && "
        + ("segpipe run" if Paths(root).data.is_dir() else "segpipe data import SRC")
    )


def _check_source(root: Path, source: Path, format: str) -> None:
    """Check what can be checked before anything is written.

    Raises:
        ConfigError: there is no such layout, or the source and the new workspace contain each other.
    """
    from segpipe.data.formats.registry import AUTO, find_format
    from segpipe.errors import ConfigError
    from segpipe.workspace.paths import Paths
    from segpipe.workspace.root import is_workspace

    if format != AUTO:
        find_format(format)
    if is_workspace(source) and source != root:
        raise ConfigError(
            "is a workspace, not a folder of labelled images",
            where=source,
            fix=f"import its data: {shlex.join(['segpipe', 'init', str(root), '--data', str(Paths(source).data)])}",
        )
    beside_data = is_workspace(root) and source != root and not source.is_relative_to(Paths(root).data)
    if (source.is_relative_to(root) and not beside_data) or root.is_relative_to(source):
        inner, outer = (source, root) if source.is_relative_to(root) else (root, source)
        raise ConfigError(
            "the folder of the images and the new workspace contain each other",
            where=inner,
            found=f"it lies in {outer}" if inner != outer else "the same folder twice",
            expected="two separate folders",
            fix=f"create the workspace elsewhere: {shlex.join(['segpipe', 'init', f'{outer}-workspace', '--data', str(source)])}",
        )


@contextlib.contextmanager
def _removed_after_errors(root: Path) -> Iterator[None]:
    """Remove what `init` has written to a new or empty folder, if an error or an interrupt ends it."""
    existed = root.exists()
    is_empty = not existed or (root.is_dir() and not any(root.iterdir()))
    try:
        yield
    except BaseException:
        if is_empty and root.is_dir():
            for path in root.iterdir():
                _remove(path)
            if not existed:
                root.rmdir()
        raise


def _remove(path: Path) -> None:
    """Remove a file or a folder; files of Git and DVC may be read-only."""
    import os
    import shutil
    import stat

    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return
    for folder, _, _ in os.walk(path):
        Path(folder).chmod(stat.S_IRWXU)
    shutil.rmtree(path)


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

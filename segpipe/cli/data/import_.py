"""`segpipe data import`: import labelled images."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from segpipe.cli.common import Json, print_json, workspace_root
from segpipe.cli.data.formats import print_formats
from segpipe.cli.data.import_options import (
    Replace,
    SourceOptions,
    Table,
    Yes,
    import_options,
    with_source_options,
)

if TYPE_CHECKING:
    from segpipe.data.importer import ImportOptions
    from segpipe.data.imports.report import ImportReport

EXAMPLE = """segpipe data import ../camvid --ignore 11
segpipe data import ../cells --images scans --masks drawn --suffix _mask --classes "cell=255,membrane=0"
segpipe data import ../streets --format colour-masks --palette label_colors.txt --tolerance 8
segpipe data import ../tumours --format mask-per-class --overlapping"""


class ImportCommand(TyperCommand):
    """A command whose help ends with the table of layouts. Their modules are only imported for the help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the usual help, then the table."""
        super().format_help(ctx, formatter)
        print_formats()


@with_source_options
def data_import(
    source: Annotated[Path, typer.Argument(help="Folder with the labelled images.", metavar="SRC", exists=True)],
    *,
    source_options: SourceOptions,
    table: Table = None,
    replace: Replace = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Import labelled images into data/, and version them with DVC.

    If the source can be read in several ways, nothing is imported, and the error shows each reading with the command that chooses it.
    """
    from segpipe.progress import say
    from segpipe.workspace.lock import lock

    command = f"segpipe data import {shlex.quote(str(source))}"
    options = import_options(command, source_options, table=table, replace=replace, yes=yes)
    root = workspace_root()
    with lock(root), readings_as_json(json):
        report = import_data(root, source.resolve(), source_options.format, options)
    if json:
        print_json(report.model_dump(mode="json"))
    say("data.dvc identifies the content of data/; `git commit` records this version")
    say("Next: segpipe data stats, segpipe run")


@contextlib.contextmanager
def readings_as_json(wanted: bool) -> Iterator[None]:
    """If the source is unclear, print its readings as JSON on stdout before the error, where JSON is the output."""
    from segpipe.data.formats.readings.choose import UnclearSource

    try:
        yield
    except UnclearSource as error:
        if wanted:
            print_json({"readings": error.as_json()})
        raise


def import_data(root: Path, source: Path, format: str, options: ImportOptions) -> ImportReport:
    """Import labelled images into a workspace's data/, version them, and choose candidates that can learn from them.

    Args:
        root: the workspace; the caller holds its lock.
        source: the folder with the labelled images.
        format: the layout of the source, or "auto".
        options: the user's options.

    Returns:
        The report of the import, which is also printed.
    """
    from segpipe.config import load_params
    from segpipe.data.importer import import_dataset
    from segpipe.models.candidates import adapt_candidates, unsuitable_candidates
    from segpipe.progress import say
    from segpipe.workspace import pipeline
    from segpipe.workspace.git import git
    from segpipe.workspace.paths import Paths

    report = import_dataset(source, Paths(root).data, format, options, limits=load_params(root).data)
    for line in report.lines():
        say(line)
    kind = _are_volumes(Paths(root).data / "images"), report.classes.overlapping
    if adapt_candidates(root, *kind):
        git(root, "add", "params.yaml")
        say(
            f"params.yaml: the candidates are now {', '.join(load_params(root).candidates)}, which can learn from such data"
        )
    elif message := unsuitable_candidates(root, *kind):
        say(message)
    pipeline.add_data(root)
    git(root, "add", "data.dvc", ".gitignore")
    return report


def _are_volumes(images: Path) -> bool:
    """Return whether most files of a folder are volumes, judged by their names."""
    from segpipe.data.images import VOLUME_SUFFIXES, image_files, suffix_of

    volumes = [suffix_of(path) in VOLUME_SUFFIXES for path in image_files(images)]
    return 2 * sum(volumes) > len(volumes)

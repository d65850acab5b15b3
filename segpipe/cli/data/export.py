"""`segpipe data export`: write the data of a workspace in the layouts of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segpipe.cli.common import Json, print_json, workspace_root

if TYPE_CHECKING:
    from segpipe.data.dataset import Dataset

EXAMPLE = "segpipe data export ../nuclei-coco --format coco --split train,val"

_FORMATS = (
    "coco (compressed run-length encoding), voc (palette masks), folder (images/ + masks/), "
    "nnunet (nnU-Net v2) or, if classes overlap, mask-per-class (masks/CLASS/)."
)
_SPLITS = "Export only the images of these splits, comma-separated: train, val, test."


def data_export(
    out: Annotated[
        Path, typer.Argument(help="The folder to write. It is written completely or not at all.", metavar="DIR")
    ],
    format: Annotated[str, typer.Option("--format", help=_FORMATS)],
    split: Annotated[str | None, typer.Option("--split", help=_SPLITS)] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the content of DIR.")] = False,
    json: Json = False,
) -> None:
    """Write data/ in another layout, and report what that layout cannot represent."""
    from segpipe.config import load_params
    from segpipe.data.dataset import load_dataset
    from segpipe.data.exporters.registry import export_dataset
    from segpipe.data.splits import SPLITS
    from segpipe.errors import ConfigError
    from segpipe.progress import say
    from segpipe.workspace.paths import Paths

    root = workspace_root()
    splits = [name.strip() for name in split.split(",")] if split else []
    if unknown := [name for name in splits if name not in SPLITS]:
        raise ConfigError("no such split", found=", ".join(unknown), expected=", ".join(SPLITS), fix="correct --split")
    _check_target(root, out.resolve())
    dataset = load_dataset(Paths(root).data)
    if splits:
        dataset = _with_splits(dataset, root)
    limits = load_params(root).data
    report = export_dataset(dataset, out.resolve(), format, limits, splits=splits, replace_out=replace)
    if json:
        print_json(
            {
                "format": report.format,
                "images": report.images,
                "left_out": report.left_out,
                "losses": +report.losses,
                "notes": report.notes,
            }
        )
        return
    for line in report.lines():
        say(line)
    typer.echo(out)


def _check_target(root: Path, out: Path) -> None:
    """Raise ConfigError for a folder whose replacement would delete the data, the history or the whole workspace."""
    from segpipe.errors import ConfigError

    top = out.relative_to(root).parts[0] if out.is_relative_to(root) and out != root else ""
    if root.is_relative_to(out) or top == "data" or top.startswith("."):
        raise ConfigError(
            "would overwrite the workspace", where=out, fix="choose a folder outside the workspace, or next to data/"
        )


def _with_splits(dataset: Dataset, root: Path) -> Dataset:
    """Add the splits that `ingest` assigned to a dataset. If it has not run yet, only the splits of samples.csv are known."""
    from dataclasses import replace

    from segpipe.data.manifest.table import read_manifest
    from segpipe.workspace.paths import Paths

    path = Paths(root).manifest
    if not path.exists():
        return dataset
    frame = read_manifest(path)
    split_of = dict(zip(frame["key"], frame["split"], strict=True))
    return replace(dataset, items=[replace(item, split=split_of.get(item.key, item.split)) for item in dataset.items])

"""`segpipe data export`: the data of a workspace in the layouts of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segpipe.cli.common import Json, print_json, workspace_root

if TYPE_CHECKING:
    from segpipe.data.dataset import Dataset

EXAMPLE = "segpipe data export ../nuclei-coco --format coco --split train,val"

_FORMATS = "coco (compressed run-length codes), voc (palette masks), folder (images/ + masks/) or nnunet (nnU-Net v2)."
_SPLITS = "Only the images of these splits, comma-separated: train, val, test."


def data_export(
    out: Annotated[Path, typer.Argument(help="The folder to write; it appears whole or not at all.", metavar="DIR")],
    format: Annotated[str, typer.Option("--format", help=_FORMATS)],
    split: Annotated[str | None, typer.Option("--split", help=_SPLITS)] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace what is in DIR.")] = False,
    json: Json = False,
) -> None:
    """Write data/ in another layout, and say what that layout cannot hold."""
    from segpipe.config import load_params
    from segpipe.data.dataset import load_dataset
    from segpipe.data.exporters.registry import export_dataset
    from segpipe.data.splits import SPLITS
    from segpipe.errors import ConfigError
    from segpipe.progress import say

    root = workspace_root()
    splits = [name.strip() for name in split.split(",")] if split else []
    if wrong := [name for name in splits if name not in SPLITS]:
        raise ConfigError("no such split", found=", ".join(wrong), expected=", ".join(SPLITS))
    _spare_workspace(root, out.resolve())
    dataset = load_dataset(root / "data")
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


def _spare_workspace(root: Path, out: Path) -> None:
    """ConfigError for a folder whose replacement would take the data, the history or the whole workspace with it."""
    from segpipe.errors import ConfigError

    inner = out.relative_to(root).parts if out.is_relative_to(root) else ("beside",)
    if root.is_relative_to(out) or inner[0] == "data" or inner[0].startswith("."):
        raise ConfigError("would write over the workspace", where=out, fix="choose a folder outside, or beside data/")


def _with_splits(dataset: Dataset, root: Path) -> Dataset:
    """The dataset with the splits that `ingest` gave; where it has not run yet, those of samples.csv alone."""
    from dataclasses import replace

    from segpipe.data.manifest.table import read_manifest

    path = root / "artifacts" / "manifest.parquet"
    if not path.exists():
        return dataset
    frame = read_manifest(path)
    given = dict(zip(frame["key"], frame["split"], strict=True))
    return replace(dataset, items=[replace(item, split=given.get(item.key, item.split)) for item in dataset.items])

"""`segpipe data demo`: write the built-in demo data."""

from __future__ import annotations

from typing import Annotated

import typer

from segpipe.cli.common import workspace_root

EXAMPLE = "segpipe data demo && dvc repro"


def data_demo(
    images: Annotated[int, typer.Option("--images", min=10, help="Number of images.")] = 240,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Random seed; another seed gives different images.")
    ] = 2026,
) -> None:
    """Write the built-in demo data (stained cells, three classes) into data/. The files are byte-identical on every machine."""
    from segpipe.data.demo.write import write_demo
    from segpipe.progress import say
    from segpipe.workspace import pipeline
    from segpipe.workspace.git import git
    from segpipe.workspace.lock import lock
    from segpipe.workspace.paths import Paths

    root = workspace_root()
    with lock(root):
        write_demo(Paths(root).data, images, seed)
        pointer = root / pipeline.DATA_POINTER
        before = pointer.read_bytes() if pointer.exists() else None
        pipeline.add_data(root)
        unchanged = pointer.read_bytes() == before
        if not unchanged:
            git(root, "add", "data.dvc", ".gitignore")
    say(f"{images} images in data/; data.dvc " + ("is unchanged" if unchanged else "was updated"))

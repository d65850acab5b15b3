"""`segpipe models`: the released versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from segpipe.cli.common import Json, print_json, print_table, workspace_root

if TYPE_CHECKING:
    from segpipe.release.release_record import Release

EXAMPLE = "segpipe models\nsegpipe models --json"


def models(json: Json = False) -> None:
    """Every version that was released: stages, engine, score, and the data and commit that it comes from."""
    from segpipe.release import registry

    releases = registry.versions(workspace_root())
    if json:
        print_json([release.model_dump(mode="json") for release in releases])
        return
    if not releases:
        typer.echo("no version has been released yet: segpipe run makes one when a winner passes the gates")
        return
    columns = ["version", "live in", "candidate", "engine", "score", "data", "commit", "released"]
    print_table(columns, [table_row(release) for release in releases])


def table_row(release: Release) -> list[str]:
    """The cells of one release in the table of `segpipe models`."""
    score = "" if release.score is None else f"{release.score:.3f} {release.metric}"
    origin = [release.data_hash[:8], release.commit[:8], release.created_at]
    candidate = release.candidate + (f" from {release.parent}" if release.parent else "")
    return [release.version, ", ".join(release.stages), candidate, release.engine or "", score, *origin]

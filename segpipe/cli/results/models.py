"""`segpipe models`: list the released versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from segpipe.cli.common import Json, print_json, print_table, workspace_root

if TYPE_CHECKING:
    from segpipe.release.release_record import Release
    from segpipe.release.stage_history import StageChange

EXAMPLE = "segpipe models\nsegpipe models --history\nsegpipe models --json"

_HISTORY = "List instead which version became live in which stage, when, by whom and why."


def models(history: Annotated[bool, typer.Option("--history", help=_HISTORY)] = False, json: Json = False) -> None:
    """List all released versions: where each is live, its candidate, engine and score, its data and its commit."""
    from segpipe.release import promotion, registry

    if history:
        _print_history(promotion.stage_changes(workspace_root()), json)
        return
    releases = registry.versions(workspace_root())
    if json:
        print_json([release.model_dump(mode="json") for release in releases])
        return
    if not releases:
        typer.echo("no version has been released yet; `segpipe run` releases a winner that passes the gates")
        return
    columns = ["version", "live in", "candidate", "engine", "score", "data", "commit", "released"]
    print_table(columns, [table_row(release) for release in releases])


def _print_history(changes: list[StageChange], json: bool) -> None:
    if json:
        print_json([change.model_dump(mode="json") for change in changes])
    elif not changes:
        typer.echo("no version was ever live; `segpipe promote VERSION` makes one live")
    else:
        columns = ["time", "stage", "action", "version", "live before", "by", "reason"]
        rows = [[c.at, c.stage, c.action, c.version, c.before or "", c.by, c.reason or ""] for c in changes]
        print_table(columns, rows)


def table_row(release: Release) -> list[str]:
    """Return the cells of one release in the table of `segpipe models`."""
    score = "" if release.score is None else f"{release.score:.3f} {release.metric}"
    origin = [release.data_hash[:8], release.commit[:8], release.created_at]
    candidate = release.candidate + (f" from {release.parent}" if release.parent else "")
    return [release.version, ", ".join(release.stages), candidate, release.engine or "", score, *origin]

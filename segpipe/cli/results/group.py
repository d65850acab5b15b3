"""Commands that make and show results: run, gate, report, models, predict."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segpipe.cli.common import Json, add, print_json, print_table, workspace_root
from segpipe.cli.results import compare, predict, tune

if TYPE_CHECKING:
    from segpipe.release.registry import Release

PANEL = "Results"


class Promote(StrEnum):
    """What `segpipe run` does with a winner that passed."""

    auto = "auto"
    manual = "manual"


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    add(app, PANEL, "run", run, "segpipe run\nsegpipe run --promote manual --jobs 2")
    add(app, PANEL, "gate", gate, "segpipe gate\nsegpipe gate --explain\nsegpipe gate --json")
    add(app, PANEL, "report", report, "segpipe report --open")
    add(app, PANEL, "compare", compare.compare, compare.EXAMPLE)
    add(app, PANEL, "tune", tune.tune, tune.EXAMPLE)
    add(app, PANEL, "models", models, "segpipe models\nsegpipe models --json")
    add(app, PANEL, "predict", predict.predict, predict.EXAMPLE)


def run(
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Stages at once, on whatever device. By default one a device.")
    ] = None,
    promote: Annotated[
        Promote | None, typer.Option("--promote", help="Instead of release.promote in params.yaml.")
    ] = None,
    json: Json = False,
) -> None:
    """Redo what changes in data, code or parameters call for; release and promote a winner that passes its gates.

    Exit code 4: everything ran, and the winner is worse than a gate allows; 7: a gate can't tell; others: something broke.
    """
    from segpipe.cli.results.gate import check_released
    from segpipe.progress import say
    from segpipe.workspace.flow_loader import load_flow

    root = workspace_root()
    say("starting (Prefect takes some seconds)")
    summary = load_flow(root, "retrain").run(root, jobs, promote.value if promote else None)
    if json:
        print_json(summary)
    else:
        for line in describe_run(summary):
            say(line)
    check_released(summary)


def describe_run(summary: dict[str, Any]) -> list[str]:
    """What a run did, in words."""
    from segpipe.progress import format_seconds

    ran, fresh = summary["ran"], summary["up_to_date"]
    words = f"{len(ran)} of {len(ran) + len(fresh)} stages ran" if ran else "every stage was up to date"
    lines = [f"{words}, {format_seconds(summary['seconds'])} in all"]
    if summary.get("version"):
        new = "released" if summary["released"] else "released before"
        lines.append(
            f"winner: {summary['selection']['winner']}, {new} as {summary['version']}; live: {summary['live'] or 'nothing'}"
        )
    return lines


def gate(
    explain: Annotated[
        bool, typer.Option("--explain", help="Also why each gate stands, and what it says of classes and slices.")
    ] = False,
    json: Json = False,
) -> None:
    """What each gate says of the winner, in sentences. Releases nothing, judges nothing anew.

    Exit code 0: the winner may be released; 4: it is worse than a gate allows; 7: a gate can't tell; 6: nothing was judged yet.
    """
    from segpipe.cli.results.gate import check_outcome, explained, told
    from segpipe.errors import MissingError
    from segpipe.gates.selection import Selection

    root = workspace_root()
    path = root / "selection.json"
    if not path.exists():
        raise MissingError("nothing was judged yet", where=path, fix="segpipe run, or dvc repro select")
    selection = Selection.read(path)
    if json:
        print_json(told(selection))
    else:
        typer.echo("\n".join(explained(selection, explain)))
    check_outcome(selection)


def report(open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False) -> None:
    """Where the report is: scores, curves, confusion, verdicts, the best and worst images."""
    from segpipe.errors import MissingError

    path = workspace_root() / "reports" / "report.html"
    if not path.exists():
        raise MissingError("no report yet", where=path, fix="segpipe run makes it")
    typer.echo(path)
    if open_it:
        typer.launch(path.as_uri())


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
    print_table(columns, [_row(r) for r in releases])


def _row(release: Release) -> list[str]:
    told = "" if release.score is None else f"{release.score:.3f} {release.metric}"
    origin = [release.data_hash[:8], release.commit[:8], release.created_at]
    made = release.candidate + (f" from {release.parent}" if release.parent else "")
    return [release.version, ", ".join(release.stages), made, release.engine or "", told, *origin]

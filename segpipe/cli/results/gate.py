"""`segpipe gate`: the verdict of each gate on the winner, and an exit code for the outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from segpipe.cli.common import Json, print_json, workspace_root

if TYPE_CHECKING:
    from segpipe.gates.selection import Selection
    from segpipe.gates.verdicts import GateVerdict

EXAMPLE = "segpipe gate\nsegpipe gate --explain\nsegpipe gate --json"


def gate(
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Also print why each gate exists, and its verdict on each class or slice."),
    ] = False,
    json: Json = False,
) -> None:
    """Print the verdict of each gate on the winner. Nothing is judged again, and nothing is released.

    Exit codes:
    - 0: the winner may be released
    - 4: a gate fails and blocks the release
    - 6: nothing has been judged yet, or there is no winner
    - 7: a gate cannot tell and blocks the release
    """
    from segpipe.errors import MissingError
    from segpipe.gates.selection import Selection
    from segpipe.gates.waivers import today
    from segpipe.workspace.paths import Paths

    paths = Paths(workspace_root())
    if not paths.selection.exists():
        raise MissingError("nothing has been judged yet", where=paths.selection, fix="segpipe run, or dvc repro select")
    selection = Selection.read(paths.selection, paths.bundle)
    if json:
        print_json(as_json(selection))
    else:
        typer.echo("\n".join(as_text(selection, explain)))
    selection.check_promotable(today())


def as_json(selection: Selection) -> dict[str, Any]:
    """Return the winner, whether it may be released today, the gates that block, and all verdicts, for programs."""
    from segpipe.gates.waivers import today

    return {
        "winner": selection.winner,
        "promotable": selection.promotable_on(today()),
        "blocking": [verdict.name for verdict in selection.blocking(today())],
        "summary": selection.outcome_on(today()),
        "gates": [verdict.model_dump(mode="json") for verdict in selection.verdicts],
    }


def as_text(selection: Selection, explain: bool) -> list[str]:
    """Return the outcome and one line per gate; with `explain` also why the gate exists, and its classes or slices."""
    from segpipe.gates.waivers import today

    lines = [selection.outcome_on(today())]
    for verdict in selection.verdicts:
        ended = (
            " This waiver has ended since: the gate blocks."
            if verdict.blocks_on(today()) and not verdict.blocks
            else ""
        )
        lines += ["", f"{verdict.name.replace('_', ' ')}: {verdict.sentence}{ended}"]
        if explain:
            lines += _explanation(verdict)
    return lines


def _explanation(verdict: GateVerdict) -> list[str]:
    lines = [f"  why this gate exists: {verdict.reason}"]
    if verdict.detectable is not None and not verdict.parts:
        lines.append(f"  these images detect a true difference of {verdict.detectable:.3f} four times out of five")
    for part in verdict.parts:
        if part.low is None and part.high is None:
            value = "no score" if part.estimate is None else f"{part.estimate:g}"
        else:
            low, high = ("?" if bound is None else f"{bound:.3f}" for bound in (part.low, part.high))
            value = f"{part.estimate:.3f} ({low} to {high})"
        p_value = "" if part.p_value is None else f", p = {part.p_value:.2g}"
        detectable = "" if part.detectable is None else f", {part.detectable:.3f} detectable"
        lines.append(f"  {part.verdict:<11} {part.name}: {value} on {part.images} images{p_value}{detectable}")
    return lines

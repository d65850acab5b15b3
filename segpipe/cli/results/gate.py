"""`segpipe gate`: what each gate says of the winner, and an exit code for it."""

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
        bool, typer.Option("--explain", help="Also why each gate stands, and what it says of classes and slices.")
    ] = False,
    json: Json = False,
) -> None:
    """What each gate says of the winner, in sentences. Releases nothing, judges nothing anew.

    Exit code 0: the winner may be released; 4: it is worse than a gate allows; 7: a gate can't tell; 6: nothing was judged yet.
    """
    from segpipe.errors import MissingError
    from segpipe.gates.selection import Selection
    from segpipe.gates.waivers import today
    from segpipe.workspace.paths import Paths

    paths = Paths(workspace_root())
    if not paths.selection.exists():
        raise MissingError("nothing was judged yet", where=paths.selection, fix="segpipe run, or dvc repro select")
    selection = Selection.read(paths.selection, paths.bundle)
    if json:
        print_json(as_json(selection))
    else:
        typer.echo("\n".join(in_words(selection, explain)))
    selection.check_promotable(today())


def as_json(selection: Selection) -> dict[str, Any]:
    """For a program: the winner, whether it may be released today, the gates that block, and every verdict."""
    from segpipe.gates.waivers import today

    return {
        "winner": selection.winner,
        "promotable": selection.promotable_on(today()),
        "blocking": [verdict.name for verdict in selection.blocking(today())],
        "summary": selection.outcome_on(today()),
        "gates": [verdict.model_dump(mode="json") for verdict in selection.verdicts],
    }


def in_words(selection: Selection, explain: bool) -> list[str]:
    """For a person: the outcome, then a line per gate; with `explain` also why the gate exists, and its classes or slices."""
    from segpipe.gates.waivers import today

    lines = [selection.outcome_on(today())]
    for verdict in selection.verdicts:
        lines += ["", f"{verdict.name.replace('_', ' ')}: {verdict.sentence}"]
        if explain:
            lines += _explanation(verdict)
    return lines


def _explanation(verdict: GateVerdict) -> list[str]:
    lines = [f"  why: {verdict.reason}"]
    if verdict.detectable is not None and not verdict.parts:
        lines.append(f"  these images would show a true difference of {verdict.detectable:.3f} four times in five")
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

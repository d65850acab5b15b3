"""What `segpipe gate` prints: the verdicts of a selection in sentences, and the exit code that they come to, there and of a run."""

from __future__ import annotations

from typing import Any

from segpipe.errors import GateBlocked, MissingError, SegpipeError, UndecidedError
from segpipe.gates.selection import Selection
from segpipe.gates.verdicts import GateVerdict
from segpipe.gates.waivers import blocking, today


def told(selection: Selection) -> dict[str, Any]:
    """For a program: winner, whether it may be released today, what blocks it, and every verdict."""
    content = selection.model_dump(mode="json")
    blocks = [gate["name"] for gate in blocking(content, today())]
    may = selection.winner is not None and not blocks
    return {
        "winner": selection.winner,
        "promotable": may,
        "blocking": blocks,
        "summary": selection.summary,
        "gates": content["gates"],
    }


def explained(selection: Selection, parts: bool) -> list[str]:
    """For a person: the outcome, then a line a gate; with `parts` also why it stands, and its classes or slices."""
    lines = [selection.summary]
    for gate in selection.gates:
        lines += ["", f"{gate.name.replace('_', ' ')}: {gate.sentence}"]
        if parts:
            lines += _more(gate)
    return lines


def _more(gate: GateVerdict) -> list[str]:
    lines = [f"  why: {gate.reason}"]
    if gate.detectable is not None and not gate.parts:
        lines.append(f"  these images would show a true difference of {gate.detectable:.3f} four times in five")
    for part in gate.parts:
        if part.low is None and part.high is None:
            value = "no score" if part.estimate is None else f"{part.estimate:g}"
        else:
            low, high = ("?" if v is None else f"{v:.3f}" for v in (part.low, part.high))
            value = f"{part.estimate:.3f} ({low} to {high})"
        luck = "" if part.p_value is None else f", p = {part.p_value:.2g}"
        least = "" if part.detectable is None else f", {part.detectable:.3f} detectable"
        lines.append(f"  {part.verdict:<11} {part.name}: {value} on {part.images} images{luck}{least}")
    return lines


def refusal(content: dict[str, Any]) -> type[SegpipeError] | None:
    """Which error it is that a selection (the content of selection.json) may not be released today: MissingError where there is
    no winner, GateBlocked where it is worse than a gate allows, UndecidedError where gates that block cannot tell; or None."""
    if content["winner"] is None:
        return MissingError
    verdicts = {gate["verdict"] for gate in blocking(content, today())}
    if not verdicts:
        return None
    return GateBlocked if "fail" in verdicts else UndecidedError


def check_outcome(selection: Selection) -> None:
    """Raise the `refusal` of a selection, with what may be done."""
    content = selection.model_dump(mode="json")
    kind = refusal(content)
    names = ", ".join(gate["name"] for gate in blocking(content, today()))
    if kind is MissingError:
        raise MissingError("there is no winner to judge", fix="add a trainable candidate to params.yaml")
    if kind is GateBlocked:
        raise GateBlocked(f"{selection.winner} may not be released", found=names, fix="segpipe report --open shows why")
    if kind is UndecidedError:
        raise UndecidedError(
            f"whether {selection.winner} may be released can't be told",
            found=names,
            fix="more test images would tell; the sentences say what these could have shown",
        )


def check_released(summary: dict[str, Any]) -> None:
    """Raise the `refusal` where a run of the retrain flow was not let through by its gates. summary: what the flow returns."""
    if summary.get("blocked"):
        kind = refusal(summary["selection"]) or GateBlocked
        raise kind(f"nothing was promoted: {summary['blocked']}", fix="segpipe gate --explain tells why")

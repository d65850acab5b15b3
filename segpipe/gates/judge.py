"""Gates: what the winner must prove before it is released. Each compares a confidence bound, not a point.

A verdict is `pass` where the bound is on the right side of the threshold, `fail` where the score itself is not, and
`cannot tell` in between: the score would do, but on so few images it may be luck. Only `pass` lets a model through; a gate of
mode `warn` tells and stops nothing, and a waiver lets one gate be missed until its last day.

`latency` is not judged here but where the engine that serves is chosen (`segpipe.gates.latency`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

from segpipe.config import Gate, GateParams, Waiver
from segpipe.gates.absolute import calibration, class_floor, data, floor, image_count, size
from segpipe.gates.case import Case
from segpipe.gates.comparative import baseline, by_slice, champion
from segpipe.gates.robustness import robustness
from segpipe.gates.verdicts import GateVerdict, WaiverNote

JUDGES: dict[str, Callable[[Any, Case], GateVerdict]] = {
    "floor": floor,
    "class_floor": class_floor,
    "baseline": baseline,
    "champion": champion,
    "slice": by_slice,
    "calibration": calibration,
    "robustness": robustness,
    "size": size,
    "data": data,
    "test_size": image_count,
}
"""What judges each section of `gates:`, in the order in which verdicts are told."""


def judge(gates: GateParams, case: Case, today: date | None = None) -> list[GateVerdict]:
    """The verdict of every gate that is on, in the order of `JUDGES`.

    today: the day by which waivers are judged; None lets none have ended. Raises ConfigError where a gate names a metric or
    class that there is not, and DataError where models were scored on different images.
    """
    on = {name: gate for name in JUDGES if (gate := getattr(gates, name)) is not None}
    return [apply_policy(JUDGES[name](gate, case), gate, gates.waivers, today) for name, gate in on.items()]


def apply_policy(verdict: GateVerdict, gate: Gate, waivers: Sequence[Waiver], today: date | None) -> GateVerdict:
    """The verdict with what comes of it: whether it blocks by the gate's mode, and the waiver that covers it.

    Of several waivers for a gate, the one that lasts longest counts. The sentence tells what else than blocking comes of it.
    """
    if verdict.verdict == "pass":
        return verdict.model_copy(update={"mode": gate.mode, "blocks": False})
    if gate.mode == "warn":
        sentence = f"{verdict.sentence} This gate only warns."
        return verdict.model_copy(update={"mode": "warn", "blocks": False, "sentence": sentence})
    if verdict.verdict == "cannot tell" and getattr(gate, "unsure", "block") == "warn":
        sentence = f"{verdict.sentence} Only a loss that is shown blocks."
        return verdict.model_copy(update={"blocks": False, "sentence": sentence})
    own = max((w for w in waivers if w.gate == verdict.name), key=lambda w: w.until, default=None)
    if own is None:
        return verdict
    note = WaiverNote(
        name=own.name, reason=own.reason, until=own.until, expired=today is not None and own.until < today
    )
    told = (
        f"The waiver of {own.name} ended on {own.until}"
        if note.expired
        else f"Waived by {own.name} until {own.until}: {own.reason}"
    )
    return verdict.model_copy(
        update={
            "waiver": note,
            "blocks": note.expired,
            "sentence": " ".join(f"{verdict.sentence} {told.rstrip('.')}.".split()),
        }
    )

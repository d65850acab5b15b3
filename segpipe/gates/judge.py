"""Judge the winner by all gates. A gate compares a confidence bound with its threshold, not just the score.

Only the verdict `pass` lets a model through (`segpipe.gates.verdicts`). A gate in mode `warn` never blocks, and a waiver lets a
model through that did not pass one gate, until the waiver ends.

The latency gate is not judged here but in `export`, where the engine is chosen (`segpipe.gates.latency`).
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
"""The function that judges each section of `gates:`, in the order in which verdicts are shown."""


def judge(gates: GateParams, case: Case, today: date | None = None) -> list[GateVerdict]:
    """Judge the winner by every gate that is enabled.

    Args:
        gates: the section `gates` of params.yaml.
        case: the winner's scores and the other evidence.
        today: the day on which waivers must be valid; None treats every waiver as valid.

    Returns:
        One verdict per gate, in the order of `JUDGES`.

    Raises:
        ConfigError: a gate names a metric or class that does not exist.
        DataError: the models were scored on different images.
    """
    enabled = {name: gate for name in JUDGES if (gate := getattr(gates, name)) is not None}
    return [apply_policy(JUDGES[name](gate, case), gate, gates.waivers, today) for name, gate in enabled.items()]


def apply_policy(verdict: GateVerdict, gate: Gate, waivers: Sequence[Waiver], today: date | None) -> GateVerdict:
    """Decide whether a verdict blocks a release, by the gate's mode and the waivers, and add this to the sentence.

    Args:
        verdict: the verdict of the gate.
        gate: settings of the gate.
        waivers: all waivers; of several for this gate, the one that ends last counts.
        today: the day on which the waiver must be valid; None treats every waiver as valid.

    Returns:
        The verdict with `mode`, `blocks` and `waiver`.
    """
    if verdict.verdict == "pass":
        return verdict.model_copy(update={"mode": gate.mode, "blocks": False})
    if gate.mode == "warn":
        sentence = f"{verdict.sentence} This gate only warns."
        return verdict.model_copy(update={"mode": "warn", "blocks": False, "sentence": sentence})
    if verdict.verdict == "cannot tell" and getattr(gate, "unsure", "block") == "warn":
        sentence = f"{verdict.sentence} This gate blocks only if a loss is significant."
        return verdict.model_copy(update={"blocks": False, "sentence": sentence})
    waiver = max((w for w in waivers if w.gate == verdict.name), key=lambda w: w.until, default=None)
    if waiver is None:
        return verdict
    expired = today is not None and waiver.until < today
    words = (
        f"The waiver of {waiver.name} ended on {waiver.until}"
        if expired
        else f"Waived by {waiver.name} until {waiver.until}: {waiver.reason}"
    )
    sentence = " ".join(f"{verdict.sentence} {words.rstrip('.')}.".split())
    note = WaiverNote(name=waiver.name, reason=waiver.reason, until=waiver.until, expired=expired)
    return verdict.model_copy(update={"waiver": note, "blocks": expired, "sentence": sentence})

"""The latency gate: does the engine that serves answer in time?

It is judged by `export`, not by `select`: the engine is chosen there, and a measured time makes no stage's outs but its own
differ from run to run. The verdict stands in the bundle's latency.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segpipe.config import GateParams
from segpipe.errors import GateBlocked, UndecidedError
from segpipe.evaluation.cost import Latency, time_predictions
from segpipe.files import sha256_file, write_json
from segpipe.gates.judge import apply_policy
from segpipe.gates.selection import LATENCY_FILE, Selection
from segpipe.gates.verdict_building import plain_verdict
from segpipe.gates.verdicts import GateVerdict
from segpipe.gates.waivers import today
from segpipe.inference.segmenter import Segmenter
from segpipe.progress import say

_RUNS = 100
_SECONDS = 20.0

MIN_RUNS = 20
"""With fewer answers than this, the slowest of twenty has not been seen."""


def measure(bundle: Path, inputs: Sequence[Mapping[str, Any]], seconds: float = _SECONDS) -> Latency:
    """Time the engine that a bundle pins.

    Args:
        bundle: the folder of the bundle.
        inputs: what `Segmenter.predict` is called with, in turn, such as the bundle's golden images.
        seconds: for how long at most, but at least once for each input.
    """
    return time_predictions(Segmenter.from_bundle(bundle), inputs, _RUNS, seconds)


def judge_latency(gates: GateParams, found: Latency, candidate: str) -> GateVerdict:
    """The verdict of the latency gate, which is on."""
    gate = gates.latency
    assert gate is not None, "the gate is on"
    said = (
        f"{candidate} on {found.engine} answers within {found.p95_ms:.1f} ms in 95 of 100 cases (half of them within "
        f"{found.p50_ms:.1f} ms; {found.runs} answers on {found.images} golden images)"
    )
    late = found.p95_ms > gate.at_most_ms
    said += f", {'above' if late else 'within'} the limit of {gate.at_most_ms:g} ms"
    unsure = not late and found.runs < MIN_RUNS
    if unsure:
        said += f", but {MIN_RUNS} answers are needed to see the slowest of twenty"
    verdict = plain_verdict(
        "latency",
        "fail" if late else "cannot tell" if unsure else "pass",
        said,
        gate,
        metric="latency.p95_ms",
        side="most",
        estimate=found.p95_ms,
        threshold=gate.at_most_ms,
    )
    return apply_policy(verdict, gate, gates.waivers, today())


def check_latency(gates: GateParams, bundle: Path, inputs: Sequence[Mapping[str, Any]], selection: Path) -> None:
    """Judge the latency of a bundle if the gate is on, and write latency.json into the bundle.

    Args:
        gates: the section `gates` of params.yaml.
        bundle: the folder of the exported winner.
        inputs: what is timed (`measure`).
        selection: the selection.json whose winner was exported.

    Raises:
        GateBlocked: the winner answers too slowly, and the gate blocks.
        UndecidedError: too few answers were timed to tell, and the gate blocks.
    """
    if gates.latency is None:
        return
    latency = measure(bundle, inputs)
    verdict = judge_latency(gates, latency, Selection.read(selection).winner or "the model")
    record = {"measured": latency.model_dump(), "gate": verdict.model_dump(mode="json")}
    write_json(bundle / LATENCY_FILE, record | {"selection_sha256": sha256_file(selection)})
    say(f"export: {verdict.sentence}")
    if verdict.blocks:
        kind = GateBlocked if verdict.verdict == "fail" else UndecidedError
        fix = (
            "take a smaller encoder, raise `gates.latency.at_most_ms`, or waive the gate for a while (`gates.waivers`)"
        )
        raise kind("the latency gate blocks the winner", where=bundle, found=verdict.sentence, fix=fix)

"""The latency gate: whether the engine that serves answers fast enough.

It is judged by `export`, not by `select`, because the engine is chosen there. So measured times, which differ from run to run,
are only in the outputs of `export`. The verdict is written to latency.json in the bundle.
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
from segpipe.gates.verdicts import GateVerdict, Verdict
from segpipe.gates.waivers import today
from segpipe.inference.segmenter import Segmenter
from segpipe.progress import say

_MAX_RUNS = 100
_MAX_SECONDS = 20.0

MIN_RUNS = 20
"""Fewest answers for a 95th percentile."""


def measure(bundle: Path, inputs: Sequence[Mapping[str, Any]], seconds: float = _MAX_SECONDS) -> Latency:
    """Time the engine that a bundle pins.

    Args:
        bundle: the folder of the bundle.
        inputs: arguments of `Segmenter.predict`, used in turn, such as the bundle's golden images.
        seconds: the longest duration of the measurement; each input is timed at least once.
    """
    return time_predictions(Segmenter.from_bundle(bundle), inputs, _MAX_RUNS, seconds)


def judge_latency(gates: GateParams, latency: Latency, candidate: str) -> GateVerdict:
    """Judge a latency.

    Args:
        gates: the section `gates` of params.yaml; the latency gate must be enabled.
        latency: the measurement.
        candidate: name of the model, for the sentence.
    """
    gate = gates.latency
    assert gate is not None, "the gate is enabled"
    too_slow = latency.p95_ms > gate.at_most_ms
    undecided = not too_slow and latency.runs < MIN_RUNS
    text = (
        f"{candidate} on {latency.engine} answers within {latency.p95_ms:.1f} ms in 95 of 100 cases (median "
        f"{latency.p50_ms:.1f} ms; {latency.runs} answers on {latency.images} golden images), "
        f"{'above' if too_slow else 'within'} the limit of {gate.at_most_ms:g} ms"
    )
    if undecided:
        text += f", but at least {MIN_RUNS} answers are needed to be sure"
    verdict: Verdict = "fail" if too_slow else "cannot tell" if undecided else "pass"
    judged = plain_verdict(
        "latency",
        verdict,
        text,
        gate,
        metric="latency.p95_ms",
        side="most",
        estimate=latency.p95_ms,
        threshold=gate.at_most_ms,
    )
    return apply_policy(judged, gate, gates.waivers, today())


def check_latency(gates: GateParams, bundle: Path, inputs: Sequence[Mapping[str, Any]], selection: Path) -> None:
    """Judge the latency of a bundle if the gate is enabled, and write latency.json into the bundle.

    Args:
        gates: the section `gates` of params.yaml.
        bundle: the folder of the exported winner.
        inputs: arguments of `Segmenter.predict` to time (`measure`).
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
        error = GateBlocked if verdict.verdict == "fail" else UndecidedError
        fix = "use a smaller encoder, raise `gates.latency.at_most_ms`, or waive the gate for a while (`gates.waivers`)"
        raise error("the latency gate blocks the winner", where=bundle, found=verdict.sentence, fix=fix)

"""Tests of the latency gate: its measurement, its verdicts, and the error that blocks a release."""

from __future__ import annotations

import json
import time
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from segpipe.config import GateParams, LatencyGate, Waiver
from segpipe.errors import GateBlocked, UndecidedError
from segpipe.evaluation.cost import Latency
from segpipe.gates.latency import check_latency, judge_latency, measure
from segpipe.gates.selection import Selection
from segpipe.inference.segmenter import Segmenter
from tests.worlds.bundles import toy_selection
from tests.worlds.evaluated_workspace import make_segmenter


def latency(p95: float = 40.0, runs: int = 100) -> Latency:
    return Latency(engine="onnxruntime", images=4, runs=runs, p50_ms=20.0, p95_ms=p95)


def gates(at_most_ms: float = 50.0, **more: object) -> GateParams:
    waivers = more.pop("waivers", ())
    return GateParams(latency=LatencyGate(at_most_ms=at_most_ms, **more), waivers=waivers)


def test_verdicts() -> None:
    assert judge_latency(gates(), latency(), "unet").sentence == (
        "Pass: unet on onnxruntime answers within 40.0 ms in 95 of 100 cases (median 20.0 ms; 100 answers on 4 "
        "golden images), within the limit of 50 ms."
    )
    late = judge_latency(gates(), latency(60), "unet")
    assert (late.verdict, late.blocks, late.estimate, late.threshold, late.side) == ("fail", True, 60, 50, "most")
    assert "above the limit of 50 ms" in late.sentence
    few = judge_latency(gates(), latency(runs=19), "unet")
    assert few.verdict == "cannot tell" and "at least 20 answers are needed" in few.sentence
    assert judge_latency(gates(), latency(60, runs=5), "unet").verdict == "fail"


def inputs() -> list[dict[str, object]]:
    """Return ten images; the engine takes longer for the first one."""
    return [{"image": np.full((8, 8, 1), 0.1 if i else 0.9, np.float32), "spacing": None} for i in range(10)]


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle whose engine takes five milliseconds longer for bright images, next to the selection that its model won."""
    segmenter = make_segmenter(0.0)
    fast_engine = segmenter.engine

    def engine(batch: np.ndarray) -> np.ndarray:
        time.sleep(0.005 if batch.max() > 0.5 else 0)
        return fast_engine(batch)

    engine.name = "slow"
    segmenter.engine = engine
    monkeypatch.setattr(Segmenter, "from_bundle", lambda folder: segmenter)
    toy_selection().write(tmp_path / "selection.json")
    return tmp_path


def test_measurement(bundle: Path) -> None:
    timed = measure(bundle, inputs())
    assert (timed.images, timed.runs) == (10, 100)
    assert timed.p95_ms >= 5 and timed.p50_ms < timed.p95_ms
    assert measure(bundle, inputs(), seconds=0).runs == 10


def test_a_bundle_that_answers_too_slowly_is_blocked(bundle: Path) -> None:
    check_latency(GateParams(), bundle, inputs(), bundle / "selection.json")
    assert not (bundle / "latency.json").exists(), "the gate is off"
    check_latency(gates(60_000.0), bundle, inputs(), bundle / "selection.json")
    record = json.loads((bundle / "latency.json").read_text())
    assert record["gate"]["verdict"] == "pass" and record["measured"]["runs"] == 100
    with pytest.raises(GateBlocked, match=r"above the limit of 0\.001 ms.*Fix: .*waive"):
        check_latency(gates(0.001), bundle, inputs(), bundle / "selection.json")
    check_latency(gates(0.001, mode="warn"), bundle, inputs(), bundle / "selection.json")
    waiver = Waiver(gate="latency", name="A", reason="a GPU comes", until="9999-12-31")
    check_latency(gates(0.001, waivers=(waiver,)), bundle, inputs(), bundle / "selection.json")
    verdict = json.loads((bundle / "latency.json").read_text())["gate"]
    assert verdict["verdict"] == "fail" and not verdict["blocks"]
    assert "Waived by A until 9999-12-31" in verdict["sentence"]


def test_too_few_answers_are_undecided(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segpipe.gates.latency.measure", lambda *_: latency(runs=3))
    with pytest.raises(UndecidedError):
        check_latency(gates(), bundle, inputs(), bundle / "selection.json")


def test_the_verdict_counts_only_for_the_selection_that_was_timed(bundle: Path) -> None:
    path = bundle / "selection.json"
    with pytest.raises(GateBlocked):
        check_latency(gates(0.001), bundle, inputs(), path)
    selection = Selection.read(path, bundle)
    assert [v.name for v in selection.blocking(date(2027, 1, 1))] == ["latency"]
    assert selection.refusal(date(2027, 1, 1)) is GateBlocked and "latency" not in path.read_text()
    toy_selection(summary="another").write(path)
    assert Selection.read(path, bundle).latency is None, (
        "the verdict of an older bundle does not count for a new selection"
    )

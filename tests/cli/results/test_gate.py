"""Tests of `segpipe gate`: sentences on stdout, and exit codes for fail, cannot tell and missing."""

from __future__ import annotations

import json
import sys
from datetime import date
from pathlib import Path

import pytest

from segpipe.cli.main import main
from segpipe.config import FloorGate, Waiver
from segpipe.errors import GateBlocked, MissingError, UndecidedError
from segpipe.files import write_text
from segpipe.gates.judge import apply_policy
from segpipe.gates.selection import Selection
from segpipe.gates.verdicts import GateVerdict, Part
from segpipe.release.run_summary import RunSummary

GATE = FloorGate(at_least=0.6)
UNTIL = date(2027, 1, 31)


def verdict(outcome: str, name: str = "floor", **fields: object) -> GateVerdict:
    return GateVerdict(
        name=name,
        verdict=outcome,
        sentence=f"{outcome.capitalize()}: the {name} gate.",
        reason="because",
        metric="iou.class.x",
        **fields,
    )


def selection(*gates: GateVerdict, winner: str | None = "unet") -> Selection:
    return Selection(
        winner=winner,
        promotable=not any(g.blocks for g in gates),
        summary="unet is the only network.",
        ranking=[],
        gates=list(gates),
        champion=None,
        classes=["a", "b"],
        test_images=3,
        data_hash="d",
    )


@pytest.fixture
def call(capsys, monkeypatch, tmp_path: Path):
    """Run `segpipe gate` on a selection on 1 January 2027, and return exit code, stdout and stderr."""
    monkeypatch.setattr("segpipe.cli.results.gate.workspace_root", lambda: tmp_path)
    monkeypatch.setattr("segpipe.gates.waivers.today", lambda: date(2027, 1, 1))

    def run(selection: Selection | str | None, *arguments: str) -> tuple[int, str, str]:
        if selection is not None:
            text = selection if isinstance(selection, str) else selection.model_dump_json()
            write_text(tmp_path / "selection.json", text)
        monkeypatch.setattr(sys, "argv", ["segpipe", "gate", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0, *capsys.readouterr()

    return run


WARNED = apply_policy(verdict("fail"), FloorGate(mode="warn"), (), None)


@pytest.mark.parametrize(
    ("gates", "code", "blocking"),
    [
        ([verdict("pass")], 0, []),
        ([], 0, []),
        ([verdict("pass"), WARNED], 0, []),
        ([verdict("fail")], 4, ["floor"]),
        ([verdict("cannot tell")], 7, ["floor"]),
        ([verdict("cannot tell", "champion"), verdict("fail", "slice")], 4, ["champion", "slice"]),
    ],
)
def test_exit_codes(call, gates: list[GateVerdict], code: int, blocking: list[str]) -> None:
    exit_code, out, err = call(selection(*gates))
    assert exit_code == code
    assert all(f"{g.name}: {g.sentence}" in out for g in gates) and out.startswith("unet is the only network.")
    assert err.count("\n") == (code != 0) and all(name in err for name in blocking)
    exit_code, out, _ = call(selection(*gates), "--json")
    result = json.loads(out)
    assert (exit_code, result["blocking"], result["promotable"]) == (code, blocking, code == 0)


@pytest.mark.parametrize(
    ("gates", "winner", "error"),
    [
        ([verdict("cannot tell", "champion"), verdict("fail", "slice")], "unet", GateBlocked),
        ([verdict("pass"), verdict("cannot tell")], "unet", UndecidedError),
        ([], None, MissingError),
    ],
)
def test_a_run_ends_with_the_same_codes(gates: list[GateVerdict], winner: str | None, error: type) -> None:
    blocked = selection(*gates, winner=winner)
    with pytest.raises(error, match=r"nothing was released: unet is the only network") as caught:
        RunSummary(root=".", selection=blocked, blocked=blocked.summary).check_released()
    assert type(caught.value) is error
    RunSummary(root=".", selection=selection(verdict("pass"))).check_released()
    RunSummary(root=".").check_released()


def test_missing_and_broken_selections(call) -> None:
    assert call(None)[0] == 6
    assert call(selection(winner=None))[0] == 6
    code, _, err = call("{")
    assert code == 3 and "selection.json" in err and "JSON" in err
    code, _, err = call('{"winner": 3}')
    assert code == 3 and err.count("\n") == 1 and "dvc repro select" in err


@pytest.mark.parametrize(("until", "code"), [(date(2026, 12, 31), 4), (date(2027, 1, 1), 0), (UNTIL, 0)])
def test_a_waiver_may_have_ended_after_the_selection(call, until: date, code: int) -> None:
    """The waiver was valid when the selection was made."""
    waiver = Waiver(gate="floor", name="A. Vogel", reason="new stain", until=str(until))
    waived = apply_policy(verdict("fail"), GATE, (waiver,), date(2026, 12, 1))
    assert not waived.blocks
    exit_code, out, _ = call(selection(waived))
    assert exit_code == code and f"Waived by A. Vogel until {until}: new stain." in out
    assert ("This waiver has ended since: the gate blocks." in out) == (code == 4)


def test_explain_prints_reasons_and_parts(call) -> None:
    parts = [
        Part(
            name="stain: HE",
            verdict="fail",
            images=14,
            estimate=-0.2,
            low=-0.25,
            high=-0.15,
            threshold=-0.05,
            p_value=0.004,
            detectable=0.06,
        ),
        Part(name="with class: a", verdict="cannot tell", images=3, threshold=-0.05),
    ]
    plain = call(selection(verdict("fail", "slice", parts=parts)))[1]
    out = call(selection(verdict("fail", "slice", parts=parts)), "--explain")[1]
    assert "stain" not in plain and "because" not in plain
    assert "  why this gate exists: because" in out and "no score on 3 images" in out
    assert "fail        stain: HE: -0.200 (-0.250 to -0.150) on 14 images, p = 0.004, 0.060 detectable" in out
    compared = call(selection(verdict("fail", "champion", detectable=0.0123)), "--explain")[1]
    assert "  these images detect a true difference of 0.012 four times out of five" in compared

"""Tests of which verdicts block a release on a given day."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from segpipe.gates.verdicts import GateVerdict, WaiverNote
from segpipe.release.bundle import Card
from segpipe.release.card import _outcome
from segpipe.release.record import RecordedVerdict
from tests.worlds.bundles import toy_selection

DAY = date(2027, 1, 31)


def gate(name: str, verdict: str, **more: object) -> GateVerdict:
    content = {"name": name, "verdict": verdict, "sentence": f"{name}.", "reason": "because", "metric": "m"}
    return GateVerdict.model_validate(content | more)


@pytest.mark.parametrize(("days", "names"), [(0, []), (-1, ["floor"])])
def test_a_waiver_that_has_ended_blocks(days: int, names: list[str]) -> None:
    waiver = WaiverNote(name="A", reason="b", until=DAY + timedelta(days), expired=False)
    gates = [gate("floor", "fail", blocks=False, waiver=waiver), gate("slice", "fail", blocks=False)]
    selection = toy_selection(gates=gates)
    assert [verdict.name for verdict in selection.blocking(DAY)] == names
    assert selection.promotable_on(DAY) == (not names)
    assert selection.outcome_on(DAY) == ("unet is held back by the floor gate." if names else selection.summary)


def test_blocking_gates_are_in_order_also_in_old_selections() -> None:
    gates = [gate("floor", "pass"), gate("champion", "cannot tell"), gate("slice", "fail", blocks=True)]
    assert [verdict.name for verdict in toy_selection(gates=gates).blocking(DAY)] == ["champion", "slice"]


def card(promotable: bool, *verdicts: str) -> Card:
    return Card.model_construct(
        promotable=promotable,
        gates=[RecordedVerdict(name=f"g{i}", verdict=v, sentence="s") for i, v in enumerate(verdicts)],
    )


def test_the_card_names_gates_that_did_not_pass() -> None:
    assert _outcome(card(True, "pass", "pass")).startswith("Every gate passed")
    assert "although g1 did not pass" in _outcome(card(True, "pass", "fail"))
    assert _outcome(card(False, "pass", "fail")).startswith("Not released")

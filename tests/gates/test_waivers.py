"""What stands in the way of a release on a given day."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from segpipe.gates.waivers import blocking
from segpipe.release.bundle import Card, Verdict
from segpipe.release.card import _outcome

DAY = date(2027, 1, 31)


def gate(name: str, verdict: str, **more: object) -> dict:
    return {"name": name, "verdict": verdict, "sentence": f"{name}."} | more


def waiver(until: date) -> dict:
    return {"name": "A", "reason": "b", "until": until.isoformat(), "expired": False}


@pytest.mark.parametrize(("days", "names"), [(0, []), (-1, ["floor"])])
def test_a_waiver_that_has_ended_blocks(days: int, names: list[str]) -> None:
    until = DAY + timedelta(days)
    gates = [
        gate("floor", "fail", blocks=False, waiver=waiver(until)),
        gate("slice", "fail", blocks=False, waiver=None),
    ]
    assert [g["name"] for g in blocking({"gates": gates}, DAY)] == names


def test_what_blocks_is_told_in_order_also_of_an_earlier_version() -> None:
    gates = [gate("floor", "pass"), gate("champion", "cannot tell"), gate("slice", "fail", blocks=True)]
    assert [g["name"] for g in blocking({"gates": gates}, DAY)] == ["champion", "slice"]


def card(promotable: bool, *verdicts: str) -> Card:
    return Card.model_construct(
        promotable=promotable, gates=[Verdict(name=f"g{i}", verdict=v, sentence="s") for i, v in enumerate(verdicts)]
    )


def test_the_card_tells_what_did_not_pass() -> None:
    assert _outcome(card(True, "pass", "pass")).startswith("Every gate passed")
    assert "although g1 did not pass" in _outcome(card(True, "pass", "fail"))
    assert _outcome(card(False, "pass", "fail")).startswith("Not released")

"""What changed between two states."""

from __future__ import annotations

import json

from segpipe.workspace.changes import Change, State, compare_states, flatten

FINGERPRINT = {
    "data_hash": "a" * 64,
    "n_images": {"train": 1200, "test": 10},
    "classes": {"classes": [{"name": "bg"}, {"name": "cell"}]},
}
PLAN = {"recipe": {"steps": 50}, "reasons": {"steps": "x"}, "execution": {"workers": 1, "timings": [1]}}
FILES = {
    "params.yaml": b"train: {lr: 0.1, budget: 40s}\ncandidates: {unet: {family: unet}}\n",
    "plans/unet.json": json.dumps(PLAN).encode(),
    "artifacts/fingerprint.json": json.dumps(FINGERPRINT).encode(),
}


def test_flat() -> None:
    assert flatten({"a": {"b": 1, "c": [1, 2]}, "d": 0.1 + 0.2, "e": None, "f": {}, "g": True}) == {
        "a.b": "1",
        "a.c": "[1, 2]",
        "d": "0.3",
        "f": "as by default",
        "g": "true",
    }


def test_what_differs_is_told_by_respect() -> None:
    before = State.read(FILES.get, "unet", {"segpipe": "0.1"})
    later = FILES | {
        "params.yaml": b"train: {lr: 0.2, budget: 40s, seed: 1}\n",
        "artifacts/fingerprint.json": json.dumps(FINGERPRINT | {"data_hash": "b" * 64}).encode(),
    }
    data, settings, plan, code = compare_states(before, State.read(later.get, "unet", {"segpipe": "0.1"}))
    assert data.changes == [Change("hash", "a" * 12, "b" * 12)]
    assert settings.changes == [
        Change("train.lr", "0.1", "0.2"),
        Change("train.seed", None, "1"),
        Change("candidates.unet.family", "unet", None),
    ]
    assert plan.known and plan.changes == [] and code.known and code.changes == []
    assert before.plan == {"recipe.steps": "50", "execution.workers": "1"}, "nothing measured, no reasons"
    assert before.data["train images"] == "1,200" and before.data["classes"] == "bg, cell"


def test_what_cannot_be_read_is_not_known() -> None:
    nothing = State.read({"params.yaml": b"[1, 2]"}.get, "unet", {"segpipe": ""})
    parts = compare_states(nothing, State.read(FILES.get, "unet", {"segpipe": "0.1"}))
    assert [part.known for part in parts] == [False] * 4 and not any(part.changes for part in parts)

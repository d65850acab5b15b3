"""Tests of the model record: declared once, and stored and served with the same keys as before it existed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from segpipe.errors import ConfigError
from segpipe.files import write_json
from segpipe.release.bundle import Card
from segpipe.release.record import DetailedModelRecord, ModelRecord
from segpipe.release.release_record import Release, parse_record
from segpipe.release.tags import VersionTag
from segpipe.serving.api import Limits, ModelAnswer
from segpipe.serving.model_holder import ModelInfo

RECORD: dict[str, Any] = {
    "candidate": "unet",
    "data_hash": "da7a",
    "weights_sha256": "5afe",
    "metric": "iou.dataset.macro",
    "scores": {"iou.dataset.macro": {"value": 0.71, "low": 0.68, "high": 0.74}},
    "gates": [{"name": "floor", "verdict": "pass", "sentence": "Pass: 0.71."}],
}
"""The keys that card, release and endpoint have in common, as the first version of segpipe wrote them."""
BLESSING = {"bento": "segmenter:v0.1.0", "images": 3, "pixels": 9, "differing_pixels": 0, "requests": 24}
BLESSING |= {"p50_ms": 1.5, "p95_ms": 2.5, "startup_s": 3.0}
CARD = RECORD | {
    "format": 1,
    "family": "unet",
    "options": {"encoder": "tiny"},
    "classes": ["background", "cell"],
    "lineage": {"plan_hash": "c0ffee"},
    "engine": "openvino",
    "agreement": 1.0,
    "int8": None,
    "promotable": True,
}
RELEASE = RECORD | {
    "name": "segmenter",
    "version": "v0.1.0",
    "commit": "c" * 40,
    "plan_hash": None,
    "parent": None,
    "model_sha256": "ab",
    "bundle_sha256": "cd",
    "engine": "openvino",
    "int8": None,
    "bless": BLESSING,
    "created_at": "2026-01-01T00:00:00+00:00",
}
ANSWER = RECORD | {
    "version": "v0.1.0",
    "git_commit": "c" * 40,
    "family": "unet",
    "options": {"encoder": "tiny"},
    "engine": "openvino",
    "int8": None,
    "classes": [{"name": "background", "value": 0, "color": [0, 0, 0]}],
    "lineage": {"plan_hash": "c0ffee"},
    "promoted_at": None,
    "limits": {"max_upload_mb": 32.0, "max_megapixels": 64.0},
    "example": True,
    "pending": None,
}
FIRST_FACTS = {*RECORD, "engine", "int8", "family", "options", "lineage"}
LATER_FACTS = DetailedModelRecord.model_fields.keys() - FIRST_FACTS
"""Fields that the record has gained since: they may be missing in what is read, and are written in addition."""


def without_later_facts(written: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in written.items() if key not in LATER_FACTS}


def tag(record: dict[str, Any]) -> VersionTag:
    return VersionTag("v0.1.0", "c" * 40, f"Release segmenter v0.1.0: unet\n\n{json.dumps(record)}\n")


@pytest.mark.parametrize("kind", [Card, Release, ModelInfo])
def test_a_field_of_the_record_is_declared_once(kind: type[ModelRecord]) -> None:
    assert issubclass(kind, ModelRecord)
    shared = ModelRecord.model_fields.keys() | (
        DetailedModelRecord.model_fields.keys() if issubclass(kind, DetailedModelRecord) else set()
    )
    assert not shared & kind.__annotations__.keys()


def test_a_card_has_the_same_keys_as_before(tmp_path: Path) -> None:
    write_json(tmp_path / "card.json", CARD)
    card = Card.read(tmp_path)
    card.write(tmp_path)
    assert without_later_facts(json.loads((tmp_path / "card.json").read_text())) == CARD
    write_json(tmp_path / "card.json", {key: value for key, value in CARD.items() if key != "int8"})
    assert Card.read(tmp_path).int8 is None
    for wrong in ({"colour": "red"}, {"engine": None}):
        write_json(tmp_path / "card.json", CARD | wrong)
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Card.read(tmp_path)


def test_a_release_has_the_same_keys_as_before() -> None:
    release = parse_record(tag(RELEASE))
    assert release is not None and without_later_facts(release.record()) == RELEASE
    first = {key: value for key, value in RELEASE.items() if key not in ("engine", "int8", "parent")}
    old = parse_record(tag(first | {"of_a_later_version": 1}))
    assert old is not None and (old.engine, old.int8, old.parent, old.score) == (None, None, None, 0.71)


def test_an_answer_has_the_same_keys_as_before() -> None:
    answer = ModelAnswer.model_validate(ANSWER)
    assert without_later_facts(answer.model_dump(mode="json")) == ANSWER
    info = ModelInfo.model_validate(answer.values_of(ModelInfo))
    own = {"limits": Limits(**ANSWER["limits"]), "example": True, "pending": None}
    assert ModelAnswer(**own, **info.values_of(ModelInfo)) == answer


def test_a_release_and_an_endpoint_take_the_record_of_a_card() -> None:
    card = Card.model_validate(CARD)
    assert card.values_of(ModelRecord).keys() == ModelRecord.model_fields.keys()
    assert card.values_of(DetailedModelRecord)["lineage"] == CARD["lineage"]
    with pytest.raises(ValidationError, match="version"):
        Release(**card.values_of(ModelRecord))

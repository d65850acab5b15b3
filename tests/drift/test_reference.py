"""The file of a reference."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from segpipe.drift.reference import Reference
from segpipe.errors import DataError


def test_a_reference_is_written_and_read(tmp_path: Path) -> None:
    reference = Reference.from_columns("uint8", 9, {"mean of channel 1": np.array([1 / 3, 200.0])})
    assert reference.values == {"mean of channel 1": [0.333333, 200]}, "rounded to six digits"
    reference.write(tmp_path / "reference.json")
    assert Reference.read(tmp_path / "reference.json") == reference


def test_a_missing_or_empty_reference_is_none_and_a_wrong_one_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "reference.json"
    assert Reference.read(path) is None
    path.write_text("{}")
    assert Reference.read(path) is None
    path.write_text(json.dumps({"dtype": "uint8", "images": 3, "valus": {}}))
    with pytest.raises(DataError, match=r"reference\.json: is not a valid reference for drift.*Fix: write \{\}"):
        Reference.read(path)

"""The reference for drift of a manifest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segpipe.config import ValidateParams
from segpipe.data.manifest.drift_reference import make_reference
from segpipe.drift.comparison import compare
from segpipe.drift.reference import Reference
from segpipe.errors import DataError
from tests.worlds.manifests import TABLE, set_values, sound_manifest


def test_a_reference_holds_what_the_manifest_says(tmp_path: Path) -> None:
    frame = sound_manifest(30)
    set_values(frame, 3, mean=np.array([1.0, 2.0, 3.0]), class_pixels=np.array([20, 0, 60]))
    set_values(frame, 4, error="images/k04.png: broken")
    reference = make_reference(frame, TABLE)
    assert reference.images == 29
    assert reference.values["mean of channel 2"][3] == 2.0
    assert [reference.values[f"share of {name}"][3] for name in TABLE.names] == [0.25, 0, 0.75]
    assert {len(values) for values in reference.values.values()} == {29}
    reference.write(tmp_path / "reference.json")
    assert Reference.read(tmp_path / "reference.json") == reference
    assert not any(d.drifted or d.psi for d in compare(reference, reference, ValidateParams()))


def test_a_manifest_without_usable_images_has_no_reference() -> None:
    with pytest.raises(DataError, match="no usable image to make a reference from"):
        make_reference(sound_manifest(3).assign(error="broken"), TABLE)

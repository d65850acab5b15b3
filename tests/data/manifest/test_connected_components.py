"""Connected components of masks, compared with SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from segpipe.data.manifest import connected_components
from segpipe.data.manifest.connected_components import component_sizes, find_runs
from tests.worlds.property_tests import examples

MASKS = arrays(np.uint8, array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=7), elements=st.integers(0, 3))


@examples(150)
@given(mask=MASKS, values=st.sets(st.integers(0, 3), min_size=1))
def test_components_agree_with_scipy(mask: np.ndarray, values: set[int]) -> None:
    runs = find_runs(mask)
    assert runs is not None
    np.testing.assert_array_equal(runs.count_pixels(), np.bincount(mask.ravel()))
    found_values, sizes = component_sizes(runs.with_values(sorted(values)))
    assert set(found_values.tolist()) <= values
    for value in values:
        labels, _ = ndimage.label(mask == value, np.ones((3,) * mask.ndim))
        assert sorted(sizes[found_values == value].tolist()) == sorted(np.bincount(labels.ravel())[1:].tolist())


def test_a_mask_with_too_many_runs_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.random.default_rng(0).integers(0, 2, (40, 40), dtype=np.uint8)
    monkeypatch.setattr(connected_components, "MAX_RUNS", 100)
    assert find_runs(mask) is None

"""Splits by hash: shares, independence of order and company, seeds."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from segpipe.config import SplitParams
from segpipe.data.splits import assign_split

from .conftest import SPLIT


def test_shares_hold_and_neighbours_in_name_are_independent() -> None:
    counts = Counter(assign_split(f"image-{i:05d}", SPLIT) for i in range(20_000))
    expected = {"train": 0.65, "val": 0.15, "test": 0.20}
    assert chisquare([counts[s] for s in expected], [20_000 * p for p in expected.values()]).pvalue > 1e-3
    order = np.array([assign_split(f"image-{i:05d}", SPLIT) == "test" for i in range(20_000)], float)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.03


@given(identity=st.text(), seed=st.integers(0, 2**31), val=st.floats(0.01, 0.4), test=st.floats(0.01, 0.4))
def test_growing_the_test_share_takes_from_the_others_and_gives_nothing_back(
    identity: str, seed: int, val: float, test: float
) -> None:
    small, large = SplitParams(val=val, test=test, seed=seed), SplitParams(val=val, test=test + 0.1, seed=seed)
    if assign_split(identity, small) == "test":
        assert assign_split(identity, large) == "test"


def test_the_splits_of_these_names_never_change() -> None:
    golden = ["train", "train", "val", "val", "val", "val", "train", "train", "test", "val"]
    names = ["a", "b", "c", "d", "e", "f", "g", "h", "pink-slide-03", "blue-slide-05"]
    assert [assign_split(n, SPLIT) for n in names] == golden
    assert [assign_split(n, SplitParams(seed=1)) for n in names] != golden

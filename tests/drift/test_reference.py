"""Population stability index and Kolmogorov-Smirnov distance against a hand computation and scipy; references there and back."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from segpipe.data.manifest.drift_reference import make_reference
from segpipe.drift.comparison import bin_shares, compare, quantile_edges, stability_index

from segpipe import stages
from segpipe.config import ValidateParams
from segpipe.data.manifest.table import read_manifest
from segpipe.drift.reference import Reference
from segpipe.errors import DataError
from segpipe.pages.components.drift_chart import draw_drift
from segpipe.samples import ClassTable
from tests.validation.test_expectations import TABLE, judge, put, sound
from tests.worlds import faulty_data

PARAMS = ValidateParams()


def reference(**values: list[float]) -> Reference:
    return Reference(dtype="uint8", images=len(next(iter(values.values()))), values=values)


def test_the_index_by_hand() -> None:
    before, now = np.array([0.5, 0.3, 0.2]), np.array([0.25, 0.25, 0.5])
    by_hand = -0.25 * math.log(0.5) - 0.05 * math.log(25 / 30) + 0.3 * math.log(2.5)
    assert stability_index(before, now) == pytest.approx(by_hand)
    assert stability_index(before, before) == 0
    assert stability_index(np.array([1.0, 0]), np.array([0, 1.0])) == pytest.approx(2 * 0.9999 * math.log(1e4))


@given(st.lists(st.floats(0, 1), min_size=3, max_size=10), st.lists(st.floats(0, 1), min_size=10, max_size=10))
def test_the_index_is_the_sum_of_both_relative_entropies(some: list[float], others: list[float]) -> None:
    p, q = np.array(some) + 0.01, np.array(others[: len(some)]) + 0.01
    p, q = p / p.sum(), q / q.sum()
    assert stability_index(p, q) == pytest.approx(stats.entropy(p, q) + stats.entropy(q, p), abs=1e-9)
    assert stability_index(p, q) == pytest.approx(stability_index(q, p))


@given(st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0, 7.5]), min_size=1, max_size=60))
def test_bins_hold_everything_and_limits_belong_below(values: list[float]) -> None:
    array = np.array(values)
    edges = quantile_edges(array)
    shares = bin_shares(array, edges)
    assert shares.sum() == pytest.approx(1)
    assert len(shares) == len(edges) + 1 <= 10
    by_hand = [np.mean(array <= edges[0])]
    by_hand += [np.mean((array > low) & (array <= high)) for low, high in pairwise(edges)]
    by_hand += [np.mean(array > edges[-1])]
    assert shares.tolist() == pytest.approx(by_hand)


def test_quantile_bins_hold_equally_many() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    assert bin_shares(values, quantile_edges(values)).tolist() == pytest.approx([0.1] * 10)


def test_distance_and_p_value_are_scipys_and_a_shift_is_drift() -> None:
    rng = np.random.default_rng(1)
    before, now = rng.normal(0, 1, 200), rng.normal(2, 1, 150)
    (drift,) = compare(reference(mean=now.tolist()), reference(mean=before.tolist()), PARAMS)
    expected = stats.ks_2samp(before, now)
    assert (drift.ks, drift.p_value) == pytest.approx((expected.statistic, expected.pvalue))
    grid = np.concatenate([before, now])
    by_hand = max(abs((before <= x).mean() - (now <= x).mean()) for x in grid)
    assert drift.ks == pytest.approx(by_hand)
    assert drift.drifted
    assert drift.psi > 1
    assert len(drift.edges) == 11
    assert drift.edges[0] == min(before.min(), now.min())


@pytest.mark.parametrize("count", [12, 40, 400])
def test_chance_alone_is_no_drift(count: int) -> None:
    """Small collections have a large index by chance; the test keeps it quiet."""
    rng = np.random.default_rng(count)
    alarms, large = 0, 0
    for _ in range(60):
        old, new = (reference(a=rng.normal(size=count).tolist(), b=rng.random(count).tolist()) for _ in range(2))
        drifts = compare(new, old, PARAMS)
        alarms += sum(d.drifted for d in drifts)
        large += sum(d.psi >= PARAMS.drift_psi for d in drifts)
    assert alarms == 0
    assert (large > 60) == (count < 100)


def test_a_tiny_shift_of_many_images_is_no_drift_though_it_is_no_chance() -> None:
    rng = np.random.default_rng(5)
    old, new = reference(a=rng.normal(0, 1, 5000).tolist()), reference(a=rng.normal(0.15, 1, 5000).tolist())
    (drift,) = compare(new, old, PARAMS)
    assert drift.p_value < 1e-4
    assert not drift.drifted


def test_a_reference_holds_what_the_manifest_says(tmp_path: Path) -> None:
    frame = sound(30)
    put(frame, 3, mean=np.array([1.0, 2.0, 3.0]), class_pixels=np.array([20, 0, 60]))
    put(frame, 4, error="images/k04.png: broken")
    made = make_reference(frame, TABLE)
    assert made.images == 29
    assert made.values["mean of channel 2"][3] == 2.0
    assert [made.values[f"share of {name}"][3] for name in TABLE.names] == [0.25, 0, 0.75]
    assert {len(values) for values in made.values.values()} == {29}
    made.write(tmp_path / "reference.json")
    assert Reference.read(tmp_path / "reference.json") == made
    assert not any(d.drifted or d.psi for d in compare(made, made, PARAMS))


def test_no_reference_is_none_and_a_wrong_one_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "reference.json"
    assert Reference.read(path) is None
    path.write_text("{}")
    assert Reference.read(path) is None
    path.write_text(json.dumps({"dtype": "uint8", "images": 3, "valus": {}}))
    with pytest.raises(DataError, match=r"reference\.json: is no reference for drift.*Fix: write \{\}"):
        Reference.read(path)


def test_drift_is_a_finding_and_a_picture() -> None:
    old, new = sound(60), sound(60)
    for row in range(60):
        put(old, row, mean=np.full(3, 100.0 + row / 10))
        put(new, row, mean=np.full(3, 103.0 + row / 10))
    drifts = compare(make_reference(new, TABLE), make_reference(old, TABLE), PARAMS)
    assert [d.drifted for d in drifts[:4]] == [True, True, True, False]
    findings = judge(new, before=make_reference(old, TABLE))
    assert [(f.expectation, f.severity, f.file) for f in findings] == [("drift", "warning", None)] * 3
    assert findings[0].found.startswith("mean of channel 1 has drifted: median 103 then, 106 now (PSI ")
    chart = draw_drift(drifts[0])
    assert len(chart.bars) == 20
    assert sum(bar.height for bar in chart.bars if bar.series == "before") == pytest.approx(
        sum(drifts[0].shares_before) / max(drifts[0].shares_now + drifts[0].shares_before) * 96, abs=1
    )
    assert all(0 <= bar.x < bar.x + bar.width <= 340 and 8 <= bar.y <= 104 for bar in chart.bars)


def test_the_stage_compares_with_the_reference_in_the_workspace(tmp_path: Path) -> None:
    split_of = faulty_data.write_valid(tmp_path / "data", tuple(f"k{i:02d}" for i in range(30)))
    faulty_data.write_samples(tmp_path / "data", split_of)
    (tmp_path / "params.yaml").write_text("candidates: {kmeans: {family: kmeans}}\n")
    stages.ingest(tmp_path)
    told = tmp_path / "reports" / "validation" / "findings.json"
    stages.validate(tmp_path)
    assert json.loads(told.read_text())["drift"] == []
    made = make_reference(
        read_manifest(tmp_path / "artifacts" / "manifest.parquet"), ClassTable.from_names(["a", "b", "c"])
    )
    darker = {name: [value / 2 for value in column] for name, column in made.values.items() if "mean" in name}
    made.model_copy(update={"values": darker}).write(tmp_path / "reference.json")
    stages.validate(tmp_path)
    drift = json.loads(told.read_text())
    assert drift["passed"]
    assert [f["found"].partition(" has drifted")[0] for f in drift["findings"] if f["expectation"] == "drift"] == list(
        darker
    )
    assert [d["ks"] for d in drift["drift"]] == [1, 1, 1]


def test_what_quarantine_leaves_out_does_not_drift() -> None:
    old, new = sound(40), sound(80)
    for row in range(40, 80):
        put(new, row, mean=np.full(3, 200.0), unknown_values='{"77": 9}', sha256=f"{row:064d}")
    before = make_reference(old, TABLE)
    drifted = {f.found.partition(" has")[0] for f in judge(new, before=before) if f.expectation == "drift"}
    assert "mean of channel 1" in drifted
    kept = judge(new, before=before, quarantine=True)
    assert [f for f in kept if f.expectation == "drift"] == []
    assert sum(f.expectation == "known_classes" for f in kept) == 40

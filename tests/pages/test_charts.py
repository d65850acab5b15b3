"""Axes and curves of the report."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from segpipe.pages.components.curves import curve_charts

from segpipe.errors import DataError
from segpipe.pages.components.confusion import axis, heat_cells, worst_confusions


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5))
def test_an_axis_holds_its_values_and_has_round_ticks(values: list[float]) -> None:
    scale = axis(values, 10, 300)
    assert all(10 <= scale(v) <= 300 for v in values)
    assert scale(min(values)) <= scale(max(values))
    assert 2 <= len(scale.ticks) <= 8
    assert all(scale.low - 1e-6 <= t <= scale.high + 1e-6 for t in scale.ticks)


def test_axis_by_hand() -> None:
    scale = axis([0.0, 1.0], 0, 100, pad=0.0)
    assert scale.ticks == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert (scale(0.25), scale(-3), scale(9)) == (25, 0, 100)
    assert axis([0.01, 0.5], 0, 100, least=0.0).low == 0
    assert axis([math.nan], 0, 1).ticks


def write_curve(root: Path, candidate: str, metric: str, values: list[float]) -> None:
    path = root / "training" / candidate / "plots" / "metrics" / f"{metric}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = "\n".join(f"{10 * i}\t{v}" for i, v in enumerate(values))
    path.write_text(f"step\t{path.stem}\n{rows}\n")


def test_curves_are_read_thinned_and_ordered(tmp_path: Path) -> None:
    write_curve(tmp_path, "unet", "train/loss", [1 / (i + 1) for i in range(1000)])
    write_curve(tmp_path, "unet", "val/iou", [0.1, 0.5, math.nan, 0.6])
    write_curve(tmp_path, "deeplab", "val/iou", [0.2, 0.4])
    write_curve(tmp_path, "deeplab", "train/once", [3.0])
    charts = curve_charts({n: tmp_path / "training" / n for n in ("unet", "deeplab", "kmeans")}, 300, 150, 40)
    assert [c.name for c in charts] == ["val/iou", "train/loss"]
    assert [(c.candidate, c.place) for c in charts[0].curves] == [("unet", 0), ("deeplab", 1)]
    assert charts[0].curves[0].points == [(0, 0.1), (10, 0.5), (30, 0.6)]
    points = charts[1].curves[0].points
    assert len(points) <= 162 and points[0] == (0, 1) and points[-1] == (9990, 0.001)


def test_a_table_of_another_shape_is_named(tmp_path: Path) -> None:
    write_curve(tmp_path, "unet", "loss", [1, 2])
    path = tmp_path / "training/unet/plots/metrics/loss.tsv"
    path.write_text("step\tloss\n1\tabc\n2\t3\n")
    with pytest.raises(DataError, match=r"loss\.tsv: is no table of dvclive"):
        curve_charts({"unet": tmp_path / "training/unet"}, 300, 150, 40)
    path.write_text("")
    assert curve_charts({"unet": tmp_path / "training/unet"}, 300, 150, 40) == []


def test_shares_are_of_the_true_class() -> None:
    counts = np.array([[90, 10, 0], [0, 0, 0], [30, 60, 10]])
    cells = {(c.row, c.column): c.share for c in heat_cells(counts)}
    assert cells == {(0, 0): 0.9, (0, 1): 0.1, (2, 0): 0.3, (2, 1): 0.6, (2, 2): 0.1}
    assert [(c.row, c.column) for c in worst_confusions(counts, 2)] == [(2, 1), (2, 0)]

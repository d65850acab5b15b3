"""Curves of training are read from the tables of DVCLive."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from segpipe.errors import DataError
from segpipe.pages.components.curves import curve_charts


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
    charts = curve_charts({n: tmp_path / "training" / n for n in ("unet", "deeplab", "kmeans")})
    assert [c.name for c in charts] == ["val/iou", "train/loss"]
    assert [(c.candidate, c.rank) for c in charts[0].curves] == [("unet", 0), ("deeplab", 1)]
    assert charts[0].curves[0].points == [(0, 0.1), (10, 0.5), (30, 0.6)]
    points = charts[1].curves[0].points
    assert len(points) <= 162 and points[0] == (0, 1) and points[-1] == (9990, 0.001)


def test_a_table_of_another_shape_is_named(tmp_path: Path) -> None:
    write_curve(tmp_path, "unet", "loss", [1, 2])
    path = tmp_path / "training/unet/plots/metrics/loss.tsv"
    path.write_text("step\tloss\n1\tabc\n2\t3\n")
    with pytest.raises(DataError, match=r"loss\.tsv: is not a table of DVCLive"):
        curve_charts({"unet": tmp_path / "training/unet"})
    path.write_text("")
    assert curve_charts({"unet": tmp_path / "training/unet"}) == []

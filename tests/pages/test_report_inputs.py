"""What the report reads of other stages' files; what has another shape shows less, never a fault."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from segpipe.pages.components.reliability import reliability_chart
from segpipe.pages.plan_views import bottleneck

from segpipe.pages.report_inputs import calibration_view, costs, further_scores, robustness_view

CURVE = {
    "03": {"pixels": 100, "confidence": 0.5, "right": 0.4},
    "09": {"pixels": 300, "confidence": 0.9, "right": 0.95},
}


def test_calibration() -> None:
    told = {"ece": 0.05, "interval": {"low": 0.04, "high": 0.07}, "mce": 0.1, "curve": CURVE}
    thinned = {"before": {"ece": 0.09}, "shipped": {"ece": 0.05}}
    view = calibration_view(
        {"test": {"calibration": told | {"thinned": thinned}}, "val": {"calibration": {"temperature": 1.5}}}
    )
    assert view is not None and [(b.confidence, b.share) for b in view.bins] == [(0.5, 0.25), (0.9, 0.75)]
    assert (view.ece, view.low, view.temperature, view.ece_before) == (0.05, 0.04, 1.5, 0.09)
    rows = [{"bin": int(key)} | row for key, row in CURVE.items()]
    as_rows = calibration_view({"test": {"calibration": told | {"curve": rows}}})
    assert as_rows is not None and as_rows.bins == view.bins
    dots = reliability_chart(view).series[0][1]
    assert dots[0].x < dots[1].x and dots[0].y > dots[1].y and dots[0].r < dots[1].r
    assert "0.50 sure, 0.40 right, 25.0 % of the pixels" in dots[0].words


@pytest.mark.parametrize(
    "part", [{}, None, 3, {"ece": 0.1}, {"ece": "x", "curve": CURVE}, {"ece": 0.1, "curve": {"00": 3}}]
)
def test_no_calibration(part: object) -> None:
    assert calibration_view({"test": {"calibration": part}}) is None


def test_robustness_by_largest_drop() -> None:
    by = {
        "blur": {
            "light": {"score": 0.8, "drop": 0.01, "low": 0.0, "high": 0.02},
            "strong": {"score": 0.7, "drop": 0.11},
        },
        "gauss_noise": {"strong": {"drop": 0.3}, "light": {"drop": 0.2}},
        "odd": 4,
    }
    view = robustness_view({"test": {"robustness": {"images": 24, "by": by}}})
    assert view is not None and view.images == 24
    assert [(d.corruption, d.severity) for d in view.drops] == [
        ("gauss noise", "light"),
        ("gauss noise", "strong"),
        ("blur", "light"),
        ("blur", "strong"),
    ]
    assert view.drops[3].low is None and view.drops[2].high == 0.02
    assert robustness_view({}) is None and robustness_view({"test": {"robustness": {"by": {}}}}) is None


def test_costs_and_bottleneck(tmp_path: Path) -> None:
    for path, content in {
        "evaluation/unet/metrics.json": {
            "model": {"megabytes": 12.5},
            "cost": {"engine": "torch", "p50_ms": 4.5, "p95_ms": 9.0, "peak_memory_mib": 812},
        },
        "training/unet/metrics.json": {"train": {"images_per_s": 20.0}, "step": 7},
        "plans/unet.json": {"execution": {"ms_per_step": 11.0, "peak_memory_mib": 900}, "recipe": {"steps": 50}},
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(json.dumps(content))
    (row,) = costs(tmp_path, ["unet", "unknown"])
    assert (row.megabytes, row.steps, row.images_per_s, row.ms, row.training_mib) == (12.5, 50, 20.0, 11.0, 900)
    assert (row.latency, row.engine, row.serving_mib) == ((4.5, 9.0), "torch", 812)
    plan = tmp_path / "plans" / "unet.json"
    plan.write_text(json.dumps(json.loads(plan.read_text()) | {"folds": {"count": 5, "dealt": "groups"}}))
    assert costs(tmp_path, ["unet"])[0].steps == 250, "of all members"
    path = tmp_path / "bottleneck.json"
    assert bottleneck(path) == []
    path.write_text(
        json.dumps([{"part": "load", "share": 0.2, "ms": 3}, {"part": "forward", "share": 0.8}, {"ms": 1}, 4])
    )
    assert [(p.part, p.share, p.ms) for p in bottleneck(path)] == [("forward", 0.8, None), ("load", 0.2, 3.0)]


def test_further_scores() -> None:
    surface = {"hd95": {"image": {"macro": 4.0, "class": {"cell": 2.0}}}, "images": 5, "millimetres": False}
    tables = further_scores([{"test": {"surface": surface, "instance": {"ap50": 0.5}}}, {}])
    assert [(t.title, t.rows) for t in tables] == [
        ("Objects", [("mask AP at IoU 0.5", [0.5, None])]),
        ("Surfaces", [("95 % Hausdorff distance image macro", [4.0, None])]),
    ]
    assert further_scores([{}, {"test": 3}]) == []

"""Contents of the report from metrics.json, and the cost of candidates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from segpipe.evaluation.metrics_file import MetricsFile
from segpipe.pages.components.reliability import reliability_chart
from segpipe.pages.report_inputs import (
    calibration_view,
    costs,
    further_scores,
    read_metrics,
    robustness_view,
)

CURVE = {
    "03": {"pixels": 100, "confidence": 0.5, "right": 0.4},
    "09": {"pixels": 300, "confidence": 0.9, "right": 0.95},
}


def metrics_of(**sections: Any) -> MetricsFile:
    return MetricsFile.model_validate(sections)


def write_files(root: Path, contents: dict[str, Any]) -> None:
    for path, content in contents.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(json.dumps(content))


def test_calibration() -> None:
    calibration = {"ece": 0.05, "interval": {"low": 0.04, "high": 0.07}, "mce": 0.1, "curve": CURVE}
    thinned = {"before": {"ece": 0.09}, "shipped": {"ece": 0.05}}
    view = calibration_view(
        metrics_of(test={"calibration": calibration | {"thinned": thinned}}, val={"calibration": {"temperature": 1.5}})
    )
    assert view is not None and [(b.confidence, b.share) for b in view.bins] == [(0.5, 0.25), (0.9, 0.75)]
    assert (view.ece, view.low, view.temperature, view.ece_before) == (0.05, 0.04, 1.5, 0.09)
    rows = [{"bin": int(key)} | row for key, row in CURVE.items()]
    as_rows = calibration_view(metrics_of(test={"calibration": calibration | {"curve": rows}}))
    assert as_rows is not None and as_rows.bins == view.bins
    dots = reliability_chart(view).series[0][1]
    assert dots[0].x < dots[1].x and dots[0].y > dots[1].y and dots[0].r < dots[1].r
    assert dots[0].text == "confidence 0.50, correct 0.40, 25.0 % of the pixels"


@pytest.mark.parametrize(
    "part", [{}, None, 3, {"ece": 0.1}, {"ece": "x", "curve": CURVE}, {"ece": 0.1, "curve": {"00": 3}}]
)
def test_no_calibration(part: object) -> None:
    metrics = MetricsFile.parse(json.dumps({"test": {"calibration": part}}).encode())
    assert calibration_view(metrics) is None


def test_robustness_by_largest_drop() -> None:
    by = {
        "blur": {
            "light": {"score": 0.8, "drop": 0.01, "low": 0.0, "high": 0.02},
            "strong": {"score": 0.7, "drop": 0.11},
        },
        "gauss_noise": {"strong": {"drop": 0.3}, "light": {"drop": 0.2}},
    }
    robustness = {"images": 24, "units": 24, "by": by, "score": 0.81}
    view = robustness_view(metrics_of(test={"robustness": robustness}))
    assert view is not None and view.images == 24
    assert [(d.corruption, d.severity) for d in view.drops] == [
        ("gauss noise", "light"),
        ("gauss noise", "strong"),
        ("blur", "light"),
        ("blur", "strong"),
    ]
    assert view.drops[3].low is None and view.drops[2].high == 0.02
    assert robustness_view(MetricsFile()) is None
    assert robustness_view(metrics_of(test={"robustness": robustness | {"by": {}}})) is None


def test_costs(tmp_path: Path) -> None:
    cost = {"engine": "torch", "images": 8, "runs": 32, "p50_ms": 4.5, "p95_ms": 9.0, "peak_memory_mib": 812}
    plan = {"execution": {"ms_per_step": 11.0, "peak_memory_mib": 900}, "recipe": {"steps": 50}}
    write_files(
        tmp_path,
        {
            "evaluation/unet/metrics.json": {"model": {"megabytes": 12.5}, "cost": cost},
            "training/unet/metrics.json": {"train": {"images_per_s": 20.0}, "step": 7},
            "plans/unet.json": plan,
        },
    )
    metrics = {name: read_metrics(tmp_path, name) for name in ("unet", "unknown")}
    (row,) = costs(tmp_path, metrics)
    assert (row.megabytes, row.steps, row.images_per_s, row.ms, row.training_mib) == (12.5, 50, 20.0, 11.0, 900)
    assert (row.latency, row.engine, row.serving_mib) == ((4.5, 9.0), "torch", 812)
    write_files(tmp_path, {"plans/unet.json": plan | {"folds": {"count": 5, "dealt": "groups"}}})
    assert costs(tmp_path, metrics)[0].steps == 250, "of all members"
    (tmp_path / "plans" / "unet.json").unlink()
    assert costs(tmp_path, metrics)[0].steps == 7, "without a plan, those that the training counted"


def test_further_scores() -> None:
    surface = {"hd95": {"image": {"macro": 4.0, "class": {"cell": 2.0}}}, "images": 5, "millimetres": 0}
    instance = {"ap50": 0.5, "true": 7, "class": {"cell": {"ap": 0.4}}, "interval": {"f1_50": {"low": 0, "high": 1}}}
    tables = further_scores([metrics_of(test={"surface": surface, "instance": instance}), MetricsFile()])
    assert [(t.title, t.rows) for t in tables] == [
        ("Instances", [("mask AP at IoU 0.5", [0.5, None]), ("true instances", [7, None])]),
        ("Surfaces", [("95 % Hausdorff distance (macro, image)", [4.0, None])]),
    ]
    assert further_scores([MetricsFile(), metrics_of(test={})]) == []

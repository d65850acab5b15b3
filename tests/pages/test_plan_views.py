"""Contents of the report from plans and timings; those of another shape are not shown."""

from __future__ import annotations

import json
from pathlib import Path

from segpipe.pages.plan_views import bottleneck, plan_views
from tests.pages.test_report_inputs import write_files


def test_bottleneck(tmp_path: Path) -> None:
    path = tmp_path / "bottleneck.json"
    assert bottleneck(path) == []
    rows = [{"part": "load", "share": 0.2, "ms": 3}, {"part": "forward", "share": 0.8}, {"ms": 1}, 4]
    path.write_text(json.dumps(rows))
    assert [(p.part, p.share, p.ms) for p in bottleneck(path)] == [("forward", 0.8, None), ("load", 0.2, 3.0)]


def test_plans(tmp_path: Path) -> None:
    slow, fast = ({"precision": "fp32", "channels_last": last, "compile": False} for last in (False, True))
    timings = [
        {"setting": slow, "ms_per_step": 20.0, "loss_difference": None, "verdict": "slower"},
        {"setting": fast, "ms_per_step": 5.0, "loss_difference": 0.01, "verdict": "chosen"},
    ]
    execution = {"setting": fast, "timings": timings, "machine": {"threads": 2}}
    plan = {"execution": execution, "reasons": {"batch": "fits into memory"}}
    classical = {"recipe": None, "execution": None, "reasons": {"seed": "set"}}
    contents = {"plans/unet.json": plan, "plans/old.json": {"execution": 3}, "plans/kmeans.json": classical}
    write_files(tmp_path, contents)
    views = plan_views(tmp_path, ["unet", "old", "kmeans", "unknown"])
    assert list(views) == ["unet", "old", "kmeans"]
    assert [(t.name, t.share, t.chosen) for t in views["unet"].timings] == [
        ("fp32", 1, False),
        ("fp32, channels-last", 0.25, True),
    ]
    assert (views["unet"].reasons, views["unet"].machine) == (plan["reasons"], {"threads": 2})
    assert (views["kmeans"].timings, views["kmeans"].reasons) == ([], {"seed": "set"})
    assert (views["old"].timings, views["old"].reasons, views["old"].machine) == ([], {}, {}), "nothing to show"

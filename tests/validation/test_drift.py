"""Drift as findings: of a manifest, of the stage, and with quarantine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from segpipe import stages
from segpipe.config import ValidateParams
from segpipe.data.manifest.drift_reference import make_reference
from segpipe.data.manifest.table import read_manifest
from segpipe.drift.comparison import compare
from segpipe.pages.components.drift_chart import draw_drift
from segpipe.samples import ClassTable
from tests.worlds import faulty_data
from tests.worlds.manifests import TABLE, judge, set_values, sound_manifest

PARAMS = ValidateParams()


def test_drift_is_a_finding_and_a_picture() -> None:
    old, new = sound_manifest(60), sound_manifest(60)
    for row in range(60):
        set_values(old, row, mean=np.full(3, 100.0 + row / 10))
        set_values(new, row, mean=np.full(3, 103.0 + row / 10))
    drifts = compare(make_reference(new, TABLE), make_reference(old, TABLE), PARAMS)
    assert [d.drifted for d in drifts[:4]] == [True, True, True, False]
    findings = judge(new, before=make_reference(old, TABLE))
    assert [(f.expectation, f.severity, f.file) for f in findings] == [("drift", "warning", None)] * 3
    assert findings[0].found.startswith("mean of channel 1 has drifted: the median was 103 and is 106 now (PSI ")
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
    findings_path = tmp_path / "reports" / "validation" / "findings.json"
    stages.validate(tmp_path)
    assert json.loads(findings_path.read_text())["drift"] == []
    reference = make_reference(
        read_manifest(tmp_path / "artifacts" / "manifest.parquet"), ClassTable.from_names(["a", "b", "c"])
    )
    darker = {name: [value / 2 for value in column] for name, column in reference.values.items() if "mean" in name}
    reference.model_copy(update={"values": darker}).write(tmp_path / "reference.json")
    stages.validate(tmp_path)
    content = json.loads(findings_path.read_text())
    assert content["passed"]
    assert [
        f["found"].partition(" has drifted")[0] for f in content["findings"] if f["expectation"] == "drift"
    ] == list(darker)
    assert [d["ks"] for d in content["drift"]] == [1, 1, 1]


def test_what_quarantine_leaves_out_does_not_drift() -> None:
    old, new = sound_manifest(40), sound_manifest(80)
    for row in range(40, 80):
        set_values(new, row, mean=np.full(3, 200.0), unknown_values='{"77": 9}', sha256=f"{row:064d}")
    before = make_reference(old, TABLE)
    drifted = {f.found.partition(" has")[0] for f in judge(new, before=before) if f.expectation == "drift"}
    assert "mean of channel 1" in drifted
    findings = judge(new, before=before, quarantine=True)
    assert [f for f in findings if f.expectation == "drift"] == []
    assert sum(f.expectation == "known_classes" for f in findings) == 40

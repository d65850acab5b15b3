"""findings.json: written and read, and what is said of a file that does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segpipe.config import ValidateParams
from segpipe.drift.comparison import DriftSummary
from segpipe.errors import DataError
from segpipe.validation.findings import Finding, FindingsFile, blocking_findings, quarantined_files

ERROR = Finding(expectation="sizes_match", severity="error", file="images/a.png", found="x", expected="y", fix="z")
NOTE = ERROR.model_copy(update={"severity": "note", "file": "images/b.png"})
DATASET = ERROR.model_copy(update={"file": None})
DRIFT = DriftSummary(quantity="share of cell", psi=0.3, ks=0.2, p_value=0.01, drifted=True, before=0.1, now=0.2)


def test_a_file_is_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "findings.json"
    content = FindingsFile(passed=False, quarantined=["images/a.png"], findings=[ERROR, NOTE], drift=[DRIFT])
    content.write(path)
    assert FindingsFile.read(path) == content
    written = json.loads(path.read_text())
    assert list(written) == ["passed", "quarantined", "findings", "drift"]
    assert list(written["findings"][0]) == ["expectation", "severity", "file", "other", "found", "expected", "fix"]
    assert list(written["drift"][0]) == ["quantity", "psi", "ks", "p_value", "drifted", "before", "now"]


def test_the_file_of_a_released_workspace_is_written_byte_by_byte(tmp_path: Path) -> None:
    text = '{\n  "passed": true,\n  "quarantined": [],\n  "findings": [],\n  "drift": []\n}\n'
    (tmp_path / "old.json").write_text(text)
    FindingsFile.read(tmp_path / "old.json").write(tmp_path / "new.json")
    assert (tmp_path / "new.json").read_text() == text


@pytest.mark.parametrize("text", ["{}", "[]", '{"passed": true, "findings": [{"severity": "error"}]}'])
def test_a_file_that_does_not_fit_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "findings.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"findings\.json: is not a valid list of findings.*Fix: `segpipe validate`"):
        FindingsFile.read(path)


def test_quarantine_leaves_out_files_and_what_remains_blocks() -> None:
    findings = [DATASET, ERROR, NOTE]
    assert quarantined_files(findings) == ["images/a.png"]
    assert blocking_findings(findings, ValidateParams()) == [DATASET, ERROR]
    assert blocking_findings(findings, ValidateParams(quarantine=True)) == [DATASET]

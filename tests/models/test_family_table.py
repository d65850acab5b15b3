"""The table of families and their properties, made from a report of pytest."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

REPORT = """<testsuites><testsuite>
<testcase name="test_saved_weights[unet]"/>
<testcase name="test_any_channels_classes_and_sizes[1-2-unet]"/>
<testcase name="test_any_channels_classes_and_sizes[5-12-unet]"><failure message="no"/></testcase>
<testcase name="test_any_channels_classes_and_sizes[3-3-unet]"/>
<testcase name="test_saved_weights[kmeans]"/>
<testcase name="test_export[kmeans]"/>
<testcase name="test_warm_start[kmeans]"><failure message="loads weights"/></testcase>
<testcase name="test_saved_weights[custom]"><error message="broken"/></testcase>
<testcase name="test_settings[unet]"/>
<testcase name="test_something_else"/>
</testsuite></testsuites>"""


@pytest.fixture(scope="module")
def benchmark(repo_root: Path) -> dict[str, Any]:
    return runpy.run_path(str(repo_root / "benchmarks" / "family_table.py"), run_name="imported")


def test_one_failed_case_makes_a_no_and_inapplicable_properties_have_reasons(
    benchmark: dict[str, Any], repo_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "report.xml").write_text(REPORT)
    table, reasons = benchmark["read"](tmp_path / "report.xml")
    assert table == {
        "unet": {"saved weights": "yes", "any channels classes and sizes": "NO"},
        "kmeans": {
            "saved weights": "yes",
            "warm start": "NO",
            "frozen encoder": "(a)",
            "export": "(b)",
            "served": "(b)",
        },
        "custom": {"saved weights": "NO", "frozen encoder": "(c)"},
    }
    assert reasons["(a)"] == benchmark["NO_STEPS"] and reasons["(b)"] == benchmark["NOT_EXPORTED"]
    page = benchmark["show"](table, reasons).splitlines()
    assert page[0].count("|") == page[2].count("|") == len(benchmark["PROPERTIES"]) + 2
    assert page[-1].startswith("(c) not applicable: a user's network")
    assert all((repo_root / path).exists() for path in benchmark["CONTRACTS"])


def test_properties_are_tested_or_do_not_apply(benchmark: dict[str, Any], repo_root: Path) -> None:
    """Each file of shared tests covers all properties that apply to its families."""
    kinds = dict(zip(benchmark["CONTRACTS"], ("network", "volume", "detector", "classical"), strict=True))
    for path, kind in kinds.items():
        source = (repo_root / path).read_text()
        inapplicable = benchmark["NOT_APPLICABLE"].get(kind, {})
        assert set(inapplicable) <= set(benchmark["PROPERTIES"])
        for name in benchmark["PROPERTIES"].keys() - inapplicable.keys():
            assert f"def test_{name.replace(' ', '_')}(" in source, (path, name)

"""The table of families by property, out of a report of pytest."""

from __future__ import annotations

import runpy
from pathlib import Path

REPORT = """<testsuites><testsuite>
<testcase name="test_a_file[unet]"/>
<testcase name="test_any_channels_classes_and_sizes[1-2-unet]"/>
<testcase name="test_any_channels_classes_and_sizes[5-12-unet]"><failure message="no"/></testcase>
<testcase name="test_any_channels_classes_and_sizes[3-3-unet]"/>
<testcase name="test_export[kmeans]"><skipped message="never wins"/></testcase>
<testcase name="test_served[kmeans]"><skipped message="never wins"/></testcase>
<testcase name="test_a_file[custom]"><error message="broken"/></testcase>
<testcase name="test_settings[unet]"/>
<testcase name="test_something_else"/>
</testsuite></testsuites>"""


def test_one_case_that_fails_is_no_and_what_is_not_asked_has_its_reason(repo_root: Path, tmp_path: Path) -> None:
    table = runpy.run_path(str(repo_root / "benchmarks" / "family_table.py"), run_name="imported")
    (tmp_path / "report.xml").write_text(REPORT)
    found, reasons = table["read"](tmp_path / "report.xml")
    assert found == {
        "unet": {"a file": "yes", "any channels classes and sizes": "NO"},
        "kmeans": {"export": "(a)", "served": "(a)"},
        "custom": {"a file": "NO"},
    }
    assert reasons == {"(a)": "never wins"}
    page = table["show"](found, reasons).splitlines()
    assert page[0].count("|") == page[2].count("|") == len(table["PROPERTIES"]) + 2 and page[-1] == "(a) never wins"
    assert all((repo_root / path).exists() for path in table["CONTRACTS"])

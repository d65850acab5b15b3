"""Family by property: runs the contract of 2D families (tests/models/test_contract.py) and prints what each one passed.

python benchmarks/family_table.py           # all of it: some minutes
python benchmarks/family_table.py --quick   # without export and learning by heart
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONTRACT = "tests/models/test_contract.py"


def run(quick: bool, only: str, report: Path) -> None:
    """Run the contract and write pytest's report; tests that fail stand in it."""
    command = [sys.executable, "-m", "pytest", CONTRACT, f"--junitxml={report}", "-k", only]
    subprocess.run([*command, *(["-m", "not slow"] if quick else [])], cwd=ROOT, check=False)


def read(report: Path) -> dict[str, dict[str, str]]:
    """Family -> property -> "yes", "NO" or "-"; a property of several cases holds where all of them do."""
    table: dict[str, dict[str, str]] = defaultdict(dict)
    for case in ET.parse(report).iter("testcase"):
        match = re.fullmatch(r"test_(?P<what>\w+)\[(?:[\d-]+-)?(?P<family>\w+)\]", case.get("name", ""))
        if match is None:
            continue
        failed = case.find("failure") is not None or case.find("error") is not None
        found = "NO" if failed else "-" if case.find("skipped") is not None else "yes"
        row, what = table[match["family"]], match["what"].replace("_", " ")
        row[what] = "NO" if "NO" in (found, row.get(what)) else found
    return table


def show(table: dict[str, dict[str, str]]) -> str:
    """The table as Markdown."""
    columns = list(dict.fromkeys(what for row in table.values() for what in row))
    lines = [f"| family | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    lines += [f"| {name} | {' | '.join(row.get(what, '-') for what in columns)} |" for name, row in table.items()]
    return "\n".join(lines)


def main() -> None:
    """Run, print, and end with 1 where a property does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="without the slow properties")
    parser.add_argument(
        "-k", dest="only", default="", metavar="NAMES", help="only these families, as pytest's -k takes them"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        run(arguments.quick, arguments.only, report)
        table = read(report)
    print(show(table))
    sys.exit(any("NO" in row.values() for row in table.values()))


if __name__ == "__main__":
    main()

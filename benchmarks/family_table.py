"""Family by property: runs the contract of every kind of family and prints what each one passed, and why a property is not asked of it.

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
CONTRACTS = [
    f"tests/models/{file}.py"
    for file in ("test_contract", "volumetric/test_contract", "detection/test_contract", "classical/test_contract")
]
PROPERTIES = {
    "any channels classes and sizes": "1 and 5 channels (3 in the others), 2 and 12 classes, odd sizes; gradients reach every parameter",
    "first weights": "follow from the seed alone, to the bit",
    "a file": "safetensors and back: the same answer to the bit",
    "a release": "goes on from a release (NAME@VERSION) whose classes stood in other places: theirs are told as they were",
    "an encoder to freeze": "`network.encoder` is the part that pretrained weights fill",
    "four images by heart": "Dice above 0.95 on four images that were shown over and over",
    "export": "ONNX Runtime and OpenVINO give the trained network's class on at least 99.9 % of pixels, at sizes not traced",
    "served": "as a bundle behind the app of the Bento: uploads get the golden masks, to the pixel",
}
"""By the name of the test, without `test_`."""


def run(quick: bool, only: str, report: Path) -> None:
    """Run the contract and write pytest's report; tests that fail stand in it."""
    command = [sys.executable, "-m", "pytest", *CONTRACTS, f"--junitxml={report}", "-k", only]
    subprocess.run([*command, *(["-m", "not slow"] if quick else [])], cwd=ROOT, check=False)


def read(report: Path) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Family -> property -> "yes", "NO" or a mark that stands for a reason; and the reasons by mark. A property of several cases
    holds where all of them do."""
    table: dict[str, dict[str, str]] = defaultdict(dict)
    marks: dict[str, str] = {}
    for case in ET.parse(report).iter("testcase"):
        match = re.fullmatch(r"test_(?P<what>\w+)\[(?:[\d-]+-)?(?P<family>\w+)\]", case.get("name", ""))
        if match is None:
            continue
        what = match["what"].replace("_", " ")
        if what not in PROPERTIES:
            continue
        failed = case.find("failure") is not None or case.find("error") is not None
        skipped, row = case.find("skipped"), table[match["family"]]
        found = "NO" if failed else "yes"
        if skipped is not None:
            found = marks.setdefault(skipped.get("message", ""), f"({chr(ord('a') + len(marks))})")
        row[what] = "NO" if "NO" in (found, row.get(what)) else found
    return table, {mark: reason for reason, mark in marks.items()}


def show(table: dict[str, dict[str, str]], reasons: dict[str, str]) -> str:
    """The table as Markdown, what its columns mean, and the reasons for what is not asked; "-": not run."""
    lines = [f"| family | {' | '.join(PROPERTIES)} |", "|---|" + "---|" * len(PROPERTIES)]
    lines += [f"| {name} | {' | '.join(row.get(what, '-') for what in PROPERTIES)} |" for name, row in table.items()]
    lines += ["", *(f"- {what}: {words}" for what, words in PROPERTIES.items())]
    return "\n".join([*lines, "", *(f"{mark} {reason}" for mark, reason in reasons.items())])


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
        table, reasons = read(report)
    print(show(table, reasons))
    sys.exit(any("NO" in row.values() for row in table.values()))


if __name__ == "__main__":
    main()

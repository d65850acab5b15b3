"""Print which properties each family has, by running the tests that all families share.

python benchmarks/family_table.py           # all properties: some minutes
python benchmarks/family_table.py --quick   # without the slow ones: overfitting, export and serving
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

from segpipe.models.families import FAMILIES

ROOT = Path(__file__).resolve().parents[1]
CONTRACTS = [
    f"tests/models/{file}.py"
    for file in ("test_contract", "volumetric/test_contract", "detection/test_contract", "classical/test_contract")
]
PROPERTIES = {
    "any channels classes and sizes": "1 and 5 channels (3 in other tests), 2 and 12 classes, odd sizes; gradients reach all parameters",
    "initial weights": "depend on the seed alone, to the bit",
    "saved weights": "safetensors and back: the same output to the bit",
    "warm start": "training continues from a release (NAME@VERSION) whose classes are in another order: they are predicted as before",
    "frozen encoder": "`network.encoder` is the part that pretrained weights fill",
    "overfits four images": "Dice above 0.95 on four images that were shown over and over",
    "export": "ONNX Runtime and OpenVINO predict the trained network's class for at least 99.9 % of pixels, at sizes not traced",
    "served": "as a bundle behind the app of the Bento: uploads are answered with the golden masks, to the pixel",
}
"""What each property means. The name is that of the test, without `test_`, with spaces."""

NO_STEPS = "not applicable: a classical model is fitted, without training steps"
NOT_EXPORTED = "not applicable: a classical model is a baseline that never wins, and export refuses it"
NOT_APPLICABLE = {
    "classical": {
        "warm start": NO_STEPS,
        "frozen encoder": NO_STEPS,
        "export": NOT_EXPORTED,
        "served": NOT_EXPORTED,
    },
    "detector": {
        "export": "not applicable: boxes and masks of any number have no ONNX graph; the bundle holds weights, and torch runs them"
    },
    "volume": {"frozen encoder": "not applicable: networks for volumes have no pretrained encoder"},
    "custom": {"frozen encoder": "not applicable: a user's network may have no encoder"},
}
"""Properties that a family cannot have, with the reason, by what the family is (see `not_applicable`)."""


def not_applicable(name: str) -> dict[str, str]:
    """Return the properties that a family cannot have, with the reasons."""
    family = FAMILIES.get(name)
    if family is None:
        return {}
    return NOT_APPLICABLE.get(name, {}) | NOT_APPLICABLE.get(family.kind, {}) | NOT_APPLICABLE.get(family.task, {})


def run(quick: bool, only: str, report: Path) -> None:
    """Run the tests and write pytest's report, in which failed tests are marked.

    Args:
        quick: Leave out slow tests.
        only: Families to test, as an expression for pytest's `-k`.
        report: The XML file to write.
    """
    command = [sys.executable, "-m", "pytest", *CONTRACTS, f"--junitxml={report}", "-k", only]
    subprocess.run([*command, *(["-m", "not slow"] if quick else [])], cwd=ROOT, check=False)


def read(report: Path) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Read pytest's report.

    Returns:
        For each family and property "yes", "NO" or the mark of a reason; and the reasons by mark. A property that is tested in several
        cases is "yes" if all of them pass.
    """
    table: dict[str, dict[str, str]] = defaultdict(dict)
    for case in ET.parse(report).iter("testcase"):
        match = re.fullmatch(r"test_(?P<property>\w+)\[(?:[\d-]+-)?(?P<family>\w+)\]", case.get("name", ""))
        if match is None or (name := match["property"].replace("_", " ")) not in PROPERTIES:
            continue
        failed = case.find("failure") is not None or case.find("error") is not None
        row = table[match["family"]]
        row[name] = "NO" if failed or row.get(name) == "NO" else "yes"
    marks: dict[str, str] = {}
    for family, row in table.items():
        for name, reason in not_applicable(family).items():
            if row.get(name) != "NO":
                row[name] = marks.setdefault(reason, f"({chr(ord('a') + len(marks))})")
    return table, {mark: reason for reason, mark in marks.items()}


def show(table: dict[str, dict[str, str]], reasons: dict[str, str]) -> str:
    """Format the table as Markdown, with the meaning of its columns and the reasons; "-" means that the test was not run."""
    lines = [f"| family | {' | '.join(PROPERTIES)} |", "|---|" + "---|" * len(PROPERTIES)]
    lines += [
        f"| {name} | {' | '.join(row.get(column, '-') for column in PROPERTIES)} |" for name, row in table.items()
    ]
    lines += ["", *(f"- {name}: {meaning}" for name, meaning in PROPERTIES.items())]
    return "\n".join([*lines, "", *(f"{mark} {reason}" for mark, reason in reasons.items())])


def main() -> None:
    """Run the tests, print the table, and exit with 1 if a family lacks a property."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="leave out the slow properties")
    parser.add_argument("-k", dest="only", default="", metavar="NAMES", help="only these families, as for pytest's -k")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        run(arguments.quick, arguments.only, report)
        table, reasons = read(report)
    print(show(table, reasons))
    sys.exit(any("NO" in row.values() for row in table.values()))


if __name__ == "__main__":
    main()

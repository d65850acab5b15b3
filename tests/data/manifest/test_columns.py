"""The documentation of the manifest's columns."""

from __future__ import annotations

import re

from segpipe.data.manifest import columns
from segpipe.data.manifest.columns import COLUMNS

TYPE_NAMES = {
    str: "str",
    bytes: "bytes",
    int: "int",
    bool: "bool",
    float: "float",
    list[float]: "list[float]",
    list[int]: "list[int]",
    list[str]: "list[str]",
}


def test_every_column_is_documented_with_its_type() -> None:
    rows = re.findall(r"^\| ([a-z0-9_, ]+) \| ([a-z\[\]]+) \| \S.*\|$", columns.__doc__ or "", re.MULTILINE)
    documented = {name: kind for names, kind in rows for name in names.split(", ")}
    documented.pop("column")
    assert documented == {name: TYPE_NAMES[kind] for name, kind in COLUMNS.items()}

"""The commands that the documentation shows, read out of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BLOCK = re.compile(r"(?:<!-- (?P<words>[^>]*?) -->\n)?```(?P<kind>\w*)\n(?P<body>.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of commands: where it stands, where it is run ("" where it is not), and the commands in order."""

    place: str
    context: str
    commands: tuple[str, ...]
    why_not: str = ""


def blocks(page: Path, root: Path) -> list[Block]:
    """The `console` blocks of a page. A comment before each says `tested: CONTEXT` or `not tested: REASON`."""
    text = page.read_text()
    found = []
    for match in BLOCK.finditer(text):
        if match["kind"] != "console":
            continue
        words = match["words"] or ""
        place = f"{page.relative_to(root)}:{text[: match.start()].count(chr(10)) + 1}"
        commands = tuple(
            re.sub(r"\s+# .*$", "", line[2:]) for line in match["body"].splitlines() if line.startswith("$ ")
        )
        if words.startswith("tested: "):
            found.append(Block(place, words.removeprefix("tested: ").strip(), commands))
        else:
            found.append(Block(place, "", commands, words.removeprefix("not tested:").strip()))
    return found


def pages(root: Path) -> list[Path]:
    """README, CONTRIBUTING and docs/."""
    return [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").glob("*.md"))]


def all_blocks(root: Path) -> list[Block]:
    """Every block of every page."""
    return [block for page in pages(root) for block in blocks(page, root)]


def commands_of(root: Path, context: str) -> list[Any]:
    """The blocks of a context as parameters of a test."""
    import pytest

    return [pytest.param(block.commands, id=block.place) for block in all_blocks(root) if block.context == context]

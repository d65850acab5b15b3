"""Read the commands that the documentation shows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BLOCK = re.compile(r"(?:<!-- (?P<comment>[^>]*?) -->\n)?```(?P<kind>\w*)\n(?P<body>.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of commands: its page and line, the context in which it is tested ("" if it is not tested), the commands in order."""

    location: str
    context: str
    commands: tuple[str, ...]
    reason_untested: str = ""


def blocks(page: Path, root: Path) -> list[Block]:
    """Return the `console` blocks of a page. A comment before each block says `tested: CONTEXT` or `not tested: REASON`."""
    text = page.read_text()
    result = []
    for match in BLOCK.finditer(text):
        if match["kind"] != "console":
            continue
        comment = match["comment"] or ""
        location = f"{page.relative_to(root)}:{text[: match.start()].count(chr(10)) + 1}"
        commands = tuple(
            re.sub(r"\s+# .*$", "", line[2:]) for line in match["body"].splitlines() if line.startswith("$ ")
        )
        if comment.startswith("tested: "):
            result.append(Block(location, comment.removeprefix("tested: ").strip(), commands))
        else:
            result.append(Block(location, "", commands, comment.removeprefix("not tested:").strip()))
    return result


def pages(root: Path) -> list[Path]:
    """Return the paths of README, CONTRIBUTING and the pages of docs/."""
    return [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").glob("*.md"))]


def all_blocks(root: Path) -> list[Block]:
    """Return all blocks of all pages."""
    return [block for page in pages(root) for block in blocks(page, root)]


def commands_of(root: Path, context: str) -> list[Any]:
    """Return the blocks of a context as pytest parameters."""
    import pytest

    return [pytest.param(block.commands, id=block.location) for block in all_blocks(root) if block.context == context]

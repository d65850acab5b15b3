"""A record of which folders are listed and which files are opened, taken from the audit events of the interpreter."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class FileAccess:
    """How often each folder below `root` was listed, and each file below it opened, by real path."""

    root: Path
    listed: Counter[Path] = field(default_factory=Counter)
    opened: Counter[Path] = field(default_factory=Counter)

    def record(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Count an audit event (https://docs.python.org/3/library/audit_events.html)."""
        counter = {"os.scandir": self.listed, "os.listdir": self.listed, "open": self.opened}.get(event)
        if counter is None or not isinstance(arguments[0], str | os.PathLike):
            return
        path = Path(os.path.realpath(arguments[0]))
        if path.is_relative_to(self.root):
            counter[path] += 1


_active: list[FileAccess] = []
_installed = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    for access in _active:
        access.record(event, arguments)


@contextmanager
def recorded_access(root: Path) -> Iterator[FileAccess]:
    """Record all access to a folder until the end of the block."""
    global _installed
    if not _installed:
        sys.addaudithook(_hook)  # it cannot be removed; without active records it does nothing
        _installed = True
    access = FileAccess(Path(os.path.realpath(root)))
    _active.append(access)
    try:
        yield access
    finally:
        _active.remove(access)

"""Where sources are made and brought to."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An empty folder for a source."""
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Where it is brought to."""
    return tmp_path / "work" / "data"

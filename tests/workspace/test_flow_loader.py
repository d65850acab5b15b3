"""Loading the flows of a workspace."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from segpipe.errors import ConfigError, MissingError
from segpipe.workspace.create import create_workspace
from segpipe.workspace.flow_loader import load_flow


def test_a_flow_of_another_version_is_named_and_the_fix_works(tmp_path: Path) -> None:
    root = tmp_path / "ws"
    create_workspace(root)
    flow = root / "flows" / "retrain.py"
    current = flow.read_text()
    flow.write_text("from segpipe.no_such_module import run\n")
    with pytest.raises(ConfigError, match=r"another version.*segpipe\.no_such_module.*Fix: ") as caught:
        load_flow(root, "retrain")
    command = str(caught.value.fix).partition(": ")[2].replace("segpipe init", f"{sys.executable} -m segpipe init")
    subprocess.run(command, shell=True, check=True, capture_output=True)
    assert flow.read_text() == current


def test_an_import_error_of_the_user_is_not_hidden(tmp_path: Path) -> None:
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "mine.py").write_text("import no_such_package\n")
    with pytest.raises(ImportError, match="no_such_package"):
        load_flow(tmp_path, "mine")
    with pytest.raises(MissingError, match="no such flow"):
        load_flow(tmp_path, "another")

"""Starting a workspace's own flows: segpipe itself knows nothing of Prefect."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from segpipe.errors import MissingError
from segpipe.workspace.prefect_settings import prefect_environment


def load_flow(root: Path, name: str, quiet: bool = True) -> ModuleType:
    """The module `flows/NAME.py` of a workspace, with Prefect's environment set before it is imported (see there for `quiet`)."""
    path = root / "flows" / f"{name}.py"
    if not path.exists():
        raise MissingError("the workspace has no such flow", where=path, fix=f"segpipe init {root} puts it back")
    os.environ.update(prefect_environment(root, quiet))
    spec = importlib.util.spec_from_file_location(f"segpipe_flow_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module

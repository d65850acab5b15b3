"""Load the Prefect flows of a workspace. They are found by path, because segpipe itself does not import Prefect."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from segpipe.errors import ConfigError, MissingError
from segpipe.workspace.paths import Paths
from segpipe.workspace.prefect_settings import prefect_environment


def load_flow(root: Path, name: str, quiet: bool = True) -> ModuleType:
    """Import `flows/NAME.py` of a workspace, after setting the environment variables that Prefect reads on import.

    Args:
        root: the workspace.
        name: the name of the flow, such as "retrain".
        quiet: whether Prefect's own log lines are kept off the terminal.

    Returns:
        The module.

    Raises:
        MissingError: the workspace has no such flow.
        ConfigError: the flow imports modules that this version of segpipe does not have.
    """
    path = Paths(root).flow(name)
    if not path.exists():
        raise MissingError("the workspace has no such flow", where=path, fix=f"restore it: segpipe init {root}")
    os.environ.update(prefect_environment(root, quiet))
    spec = importlib.util.spec_from_file_location(f"segpipe_flow_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        if not (error.name or "").startswith("segpipe"):
            raise
        raise ConfigError(
            "the flow was written for another version of segpipe",
            where=path,
            found=str(error),
            fix=f"replace it by the one of this version: rm {path} && segpipe init {root}",
        ) from error
    return module

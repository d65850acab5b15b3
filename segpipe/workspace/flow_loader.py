"""Starting a workspace's own flows: segpipe itself knows nothing of Prefect."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from segpipe.errors import MissingError
from segpipe.workspace.create import prefect_environment


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


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let a request to end (SIGTERM) and a closed terminal (SIGHUP) do what Ctrl-C does, so that what was started is ended."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may say what signals do
        yield
        return
    former = {signum: signal.signal(signum, signal.default_int_handler) for signum in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for signum, handler in former.items():
            signal.signal(signum, handler)

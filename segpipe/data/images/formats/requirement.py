"""The error for a file whose reader is a package that is not installed."""

from __future__ import annotations

import importlib
from typing import Any

from segpipe.errors import MissingError


def require(module: str, extra: str, where: str) -> Any:
    """Import the package that reads a format.

    Args:
        module: the name of the module.
        extra: the extra of segpipe that installs it.
        where: the name of the file in errors.

    Raises:
        MissingError: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingError(
            "the package that reads this format is not installed",
            where=where,
            found=f"no module {module}",
            fix=f'pip install "segpipe[{extra}]"',
        ) from error

"""Import timm and torchvision without torch's compiler, which they import on their way and which evaluation and export never use.

`torch._dynamo`, with sympy and triton, takes more processor time to import than all the rest of timm and torchvision together
(torch 2.15: 1.1 of 1.6 seconds). torchvision needs one function of it, which it calls on a GPU only; timm marks functions that must not
be compiled. Both are given stand-ins that import the compiler at their first call.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any
from unittest import mock

_COMPILER = "torch._dynamo"
_COMPILER_UTILS = "torch._dynamo.utils"


def import_without_compiler(*names: str) -> None:
    """Import libraries of networks, without torch's compiler if that is possible.

    The libraries work as if they were imported normally, also if a network is compiled later.

    Args:
        *names: The libraries, for example "timm". Later import statements find them in `sys.modules`.
    """
    missing = [name for name in names if name not in sys.modules]
    if not missing:
        return
    if _COMPILER not in sys.modules:
        # A version of the library that needs more of the compiler raises an error; it is then imported normally.
        with contextlib.suppress(ImportError, AttributeError), _stand_ins():
            for name in missing:
                importlib.import_module(name)
            return
    for name in missing:
        importlib.import_module(name)


@contextlib.contextmanager
def _stand_ins() -> Iterator[None]:
    """Within this context, the parts of the compiler that libraries use while they are imported are replaced."""
    import torch.compiler

    utils = ModuleType(_COMPILER_UTILS)
    utils.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
    sys.modules[_COMPILER_UTILS] = utils
    try:
        with mock.patch.object(torch.compiler, "disable", _disable):
            yield
    finally:
        if sys.modules.get(_COMPILER_UTILS) is utils:
            del sys.modules[_COMPILER_UTILS]


def _is_compile_supported(device_type: Any) -> Any:
    """Return the answer of the compiler's function of this name."""
    from torch._dynamo.utils import is_compile_supported

    return is_compile_supported(device_type)


def _disable(fn: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """Mark a function as not to be compiled, as `torch.compiler.disable` does, with torch's own deferred version of it."""
    import torch

    return torch._disable_dynamo(fn, recursive)

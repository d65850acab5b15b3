"""The errors that users see: one line that says where, what was found, what was expected and what to do.

Exit codes (`segpipe` ends with the code of the error it met):

| code | class | meaning |
|---|---|---|
| 0 | | done |
| 1 | | a fault of segpipe itself: the traceback is shown |
| 2 | `ConfigError` | a setting, an argument or a command used wrongly |
| 3 | `DataError` | the data are not what was expected |
| 4 | `GateBlocked` | everything ran, and the answer is no |
| 5 | `BusyError` | another run holds the workspace |
| 6 | `MissingError` | something is not there: weights, a version, a device, a tool |
| 7 | `UndecidedError` | everything ran, and the test images can't tell |
| 130 | | interrupted |
"""

from __future__ import annotations

from pathlib import Path


class SegpipeError(ValueError):
    """A message for the user, in one line: ``where: what (found ..., expected ...). Fix: ...``."""

    exit_code = 2

    def __init__(
        self,
        what: str,
        *,
        where: str | Path | None = None,
        found: object = None,
        expected: object = None,
        fix: str | None = None,
    ) -> None:
        self.what, self.where, self.found, self.expected, self.fix = what, where, found, expected, fix
        facts = [f"{name} {value}" for name, value in (("found", found), ("expected", expected)) if value is not None]
        text = f"{where}: {what}" if where is not None else what
        text += f" ({', '.join(facts)})" if facts else ""
        if fix:
            text += f"{'' if text.endswith(('.', '!', '?')) else '.'} Fix: {fix}"
        super().__init__(" ".join(text.split()))


class ConfigError(SegpipeError):
    """A setting, an argument or a command used wrongly."""


class DataError(SegpipeError):
    """An image, a mask, a table or a folder is not what was expected."""

    exit_code = 3


class GateBlocked(SegpipeError):
    """Everything ran, and the verdict is no."""

    exit_code = 4


class UndecidedError(GateBlocked):
    """Everything ran, and what there is to judge by does not tell: that is no yes."""

    exit_code = 7


class BusyError(SegpipeError):
    """Another run holds the workspace."""

    exit_code = 5


class MissingError(SegpipeError):
    """Something that is needed is not there: weights, a version, a device, a tool."""

    exit_code = 6

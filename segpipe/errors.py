"""Errors that users see: one line that says where, what is wrong, what was expected and how to fix it.

Exit codes (`segpipe` exits with the code of the error that was raised):

| code | class | meaning |
|---|---|---|
| 0 | | success |
| 1 | | a bug in segpipe: the traceback is shown |
| 2 | `ConfigError` | a wrong setting, argument or command |
| 3 | `DataError` | data that are not as expected |
| 4 | `GateBlocked` | everything ran, and a gate blocks the release |
| 5 | `BusyError` | another run uses the workspace |
| 6 | `MissingError` | something is missing: weights, a version, a device, a tool |
| 7 | `UndecidedError` | everything ran, and the test images do not allow a decision |
| 130 | | interrupted |
"""

from __future__ import annotations

from pathlib import Path


class SegpipeError(ValueError):
    """An error with a message for the user, in one line: ``where: what (found ..., expected ...). Fix: ...``.

    Args:
        what: what is wrong, such as "size differs".
        where: the file, setting or folder that is wrong.
        found: the value that was found.
        expected: the value, or a description of the values, that would be right.
        fix: what the user can do about it, such as a command.
    """

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
    """A setting, an argument or a command is wrong."""


class DataError(SegpipeError):
    """An image, a mask, a table or a folder is not what was expected."""

    exit_code = 3


class GateBlocked(SegpipeError):
    """Everything ran, and a gate blocks the release."""

    exit_code = 4


class UndecidedError(GateBlocked):
    """Everything ran, and the test images do not allow a decision; a release needs a clear yes."""

    exit_code = 7


class BusyError(SegpipeError):
    """Another run uses the workspace."""

    exit_code = 5


class MissingError(SegpipeError):
    """Something that is needed is missing: weights, a version, a device, a tool."""

    exit_code = 6

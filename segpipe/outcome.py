"""The end of a command: an error line, an exit code, and a file with both for the run that started the command."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from segpipe.errors import SegpipeError

OUTCOME_VARIABLE = "SEGPIPE_OUTCOME"
"""Environment variable with the path of the file for a command's exit code and error line. DVC does not pass on a stage's exit code."""


@contextlib.contextmanager
def report_errors() -> Iterator[None]:
    """Turn a SegpipeError into one red line on stderr and its exit code. Any other exception is a bug and shows its traceback.

    Raises:
        SystemExit: with the exit code of the error (see `segpipe.errors`), or 130 after Ctrl-C.
    """
    try:
        yield
    except SegpipeError as error:
        _end(error.exit_code, str(error))
    except KeyboardInterrupt:
        _end(130, "interrupted")
    except SystemExit as end:
        if end.code == 130:  # typer turns KeyboardInterrupt into this
            _end(130, "interrupted")
        if not end.code:
            record_outcome(0, "")
        raise
    except Exception as error:
        record_outcome(1, f"{type(error).__name__}: {error}")
        raise


def _end(code: int, message: str) -> None:
    red, plain = ("\033[31m", "\033[0m") if sys.stderr.isatty() and "NO_COLOR" not in os.environ else ("", "")
    print(f"{red}error: {message}{plain}", file=sys.stderr, flush=True)
    record_outcome(code, message)
    raise SystemExit(code)


def record_outcome(code: int, message: str) -> None:
    """Write the exit code, error line and run time in seconds to the file named by `OUTCOME_VARIABLE`, if it is set."""
    if target := os.environ.get(OUTCOME_VARIABLE):
        import psutil

        from segpipe.files import write_json

        seconds = round(time.time() - psutil.Process().create_time(), 2)
        write_json(Path(target), {"code": code, "message": message, "seconds": seconds})

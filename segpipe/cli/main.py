"""The program `segpipe`: the command-line application, its signal handling and its exit."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from segpipe import __version__
from segpipe.cli.commands import register_commands
from segpipe.outcome import report_errors

_EPILOG = (
    "Start with `segpipe demo`, or with `segpipe init my-cells --data ../images`. The help of each command ends with an example.\n\n"
    "Exit codes: 0, done; 1, a bug in segpipe (a traceback is shown); 2, a wrong setting, argument or command; 3, the data are not "
    "as expected; 4, a gate or a check failed; 5, another run is using the workspace; 6, something is missing (weights, a version, "
    "a device, a tool); 7, a gate cannot tell; 130, interrupted."
)

app = typer.Typer(
    name="segpipe",
    help="Train segmentation models on a DVC-versioned folder of labelled images, and test, package, release and serve them.",
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
register_commands(app)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"segpipe {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    directory: Annotated[
        Path | None, typer.Option("-C", help="Run as if started in this folder.", metavar="DIR")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if directory is not None:
        if not directory.is_dir():
            raise typer.BadParameter(f"{directory} is not a folder", param_hint="-C")
        os.chdir(directory)


SPIN_COUNT = "10000"
"""GOMP_SPINCOUNT: how long a thread of torch waits actively for the other threads before it sleeps.

The default of libgomp is thirty times as long. With this value, a training step takes 2 % longer on an idle machine, but threads
do not occupy a processor for which another busy process is waiting.
"""

GC_THRESHOLDS = (100_000, 50, 50)
"""Thresholds of Python's garbage collector. The default (700, 10, 10) costs a quarter of the time of importing torch."""


def main() -> None:
    """Run the command of the command line; ends with SystemExit."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    with report_errors():
        app()


def program() -> None:
    """Run `main` as a process of its own: the entry point `segpipe`."""
    gc.set_threshold(*GC_THRESHOLDS)
    _treat_signals_as_ctrl_c()
    exit_code = 1
    atexit.register(lambda: _exit_now(exit_code))  # registered first, so it is called last
    try:
        main()
    except SystemExit as end:
        exit_code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
    exit_code = 0


def _treat_signals_as_ctrl_c() -> None:
    """Let SIGTERM (sent to the stages of an interrupted run) and SIGHUP (a closed terminal) remove partly written files, as Ctrl-C does.

    A signal that the caller has set to be ignored, as nohup does, stays ignored.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def _exit_now(code: int) -> NoReturn:
    """End the process without Python's clean-up, which takes 1.5 s for the modules of torch and its dependencies."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # the stream is closed, or its reader is gone
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    program()

"""`segpipe`: the commands by what a user does with them, and the one line in which an error ends."""

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

app = typer.Typer(
    name="segpipe",
    help="From a DVC-versioned folder of labelled images to a gated, packaged, served segmentation model, and back.",
    epilog="Start with: segpipe demo, or segpipe init my-cells --data ../images. Each command's --help has an example.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
register_commands(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"segpipe {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    directory: Annotated[
        Path | None, typer.Option("-C", help="Run as if started in this folder.", metavar="DIR")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    if directory is not None:
        if not directory.is_dir():
            raise typer.BadParameter(f"{directory} is no folder", param_hint="-C")
        os.chdir(directory)


SPIN_COUNT = "10000"
"""How long a thread of torch waits at work for the others before it sleeps (libgomp's default is thirty times that): alone, a training
step takes 2 % longer for it; beside another busy process it no longer waits for a processor that the other one is waiting on.
"""


GC_THRESHOLDS = (100_000, 50, 50)
"""When Python looks for cyclic garbage. With its own (700, 10, 10) it spends a quarter of the import of torch and its relatives on that."""


def main() -> None:
    """Do what the command line says. Ends with SystemExit."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    with report_errors():
        app()


def program() -> None:
    """The entry point `segpipe`: `main` in a process of its own."""
    gc.set_threshold(*GC_THRESHOLDS)
    _end_as_by_ctrl_c()
    ends_with = [1]
    atexit.register(lambda: _leave(ends_with[0]))  # registered first, it is called last
    try:
        main()
    except SystemExit as end:
        ends_with[0] = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
    ends_with[0] = 0


def _end_as_by_ctrl_c() -> None:
    """Let a request to end (SIGTERM: of a run that was interrupted, to its stages) and a closed terminal (SIGHUP) take back what is half
    written, as Ctrl-C does. What the caller has had ignored, as nohup does, stays ignored.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def _leave(code: int) -> NoReturn:
    """End at once. Python would first take down every module of torch and its relatives, one by one, which takes 1.5 s."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # closed, or nobody reads it any more
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    program()
